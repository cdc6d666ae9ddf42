package transport_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/transport"
	"github.com/livemigrate/migrate/transport/transporttest"
)

// receiveEnv makes the test binary what `migrate receive` is: its input and output, copied to the owner's socket.
const receiveEnv = "MIGRATE_TEST_RECEIVE"

func TestMain(m *testing.M) {
	if path := os.Getenv(receiveEnv); path != "" {
		if err := receive(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func receive(path string) error {
	conn, err := transport.StdioConn(os.Stdin, os.Stdout)
	if err != nil {
		return err
	}
	d, err := transport.NewDialer(transport.Address{Scheme: transport.Unix, Path: path}, nil)
	if err != nil {
		return err
	}
	owner, err := d.DialConn(context.Background())
	if err != nil {
		return err
	}
	return transport.Proxy(context.Background(), conn, owner)
}

func TestSSH(t *testing.T) {
	config := sshHost(t)
	transporttest.Run(t, func(t *testing.T) (transport.Dialer, transport.Acceptor) { return dialSSH(t, config) })
}

// dialSSH is a dialer through ssh and an sshd to a listener on a unix socket.
func dialSSH(t testing.TB, config string) (transport.Dialer, transport.Acceptor) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "owner")
	_, a := meet(t, transport.Address{Scheme: transport.Unix, Path: path}, nil, nil)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return sshDialer(t, config, fmt.Sprintf("%s=%s %s", receiveEnv, path, self)), a
}

func sshDialer(t testing.TB, config, remoteCommand string) transport.Dialer {
	t.Helper()
	d, err := transport.NewDialer(transport.Address{Scheme: transport.SSH, Host: "peer"}, &transport.DialOptions{
		SSHCommand:    "ssh",
		SSHArgs:       []string{"-F", config},
		RemoteCommand: remoteCommand,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sshHost makes keys and configurations of the test's own, and returns ssh's. It leads to an sshd that ssh itself
// starts for each connection: a real one, with no port and nothing to stop afterwards.
func sshHost(t testing.TB) string {
	t.Helper()
	testutil.Command(t, "ssh")
	testutil.Command(t, "ssh-keygen")
	sshd := testutil.Command(t, "sshd")
	if os.Geteuid() == 0 {
		// What Debian's service makes before it starts sshd, which as root refuses to run without.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "known_hosts"), "peer "+string(public))
	write(t, filepath.Join(dir, "sshd_config"), strings.Join([]string{
		"HostKey " + filepath.Join(dir, "host"),
		"AuthorizedKeysFile " + filepath.Join(dir, "user.pub"),
		"StrictModes no",
		"UsePAM no",
		"PasswordAuthentication no",
		"PidFile none",
		"LogLevel QUIET",
		"SetEnv SHLVL=2", // bash then takes itself for no login, whose start-up file may do anything, and take long
	}, "\n")+"\n")
	config := filepath.Join(dir, "ssh_config")
	write(t, config, strings.Join([]string{
		"Host *",
		"User " + self.Username,
		"IdentityFile " + filepath.Join(dir, "user"),
		"IdentitiesOnly yes",
		"UserKnownHostsFile " + filepath.Join(dir, "known_hosts"),
		"GlobalKnownHostsFile none",
		"ProxyCommand " + sshd + " -i -f " + filepath.Join(dir, "sshd_config"),
	}, "\n")+"\n")
	return config
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSSHFailureSaysWhy(t *testing.T) {
	config := sshHost(t)
	stranger := filepath.Join(t.TempDir(), "ssh_config")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, stranger, strings.Replace(string(text), "UserKnownHostsFile ", "UserKnownHostsFile none #", 1))
	nobody := filepath.Join(t.TempDir(), "ssh_config")
	write(t, nobody, strings.Replace(string(text), "IdentityFile ", "IdentityFile none #", 1))
	for _, c := range []struct {
		name, config, command, want string
		status                      int
	}{
		{"NoMigrateOnPeer", config, "/nowhere/migrate receive", `peer has no "/nowhere/migrate receive": install migrate there`, 127},
		{"RemoteCommandFails", config, "echo disk is full >&2; exit 3", `ended with status 3: disk is full`, 3},
		{"UnknownHostKey", stranger, "true", "Host key verification failed", 255},
		{"NoKey", nobody, "true", "Permission denied", 255},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := transport.Connect(t.Context(), sshDialer(t, c.config, c.command), nil)
			failed, ok := errors.AsType[*transport.SSHError](err)
			if !ok || failed.Status != c.status || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want status %d and %q", err, c.status, c.want)
			}
			if !errors.Is(err, transport.ErrLinkLost) {
				t.Errorf("%v is no ErrLinkLost", err)
			}
		})
	}
}

func TestSSHPrefersFastCipherOfThoseAllowed(t *testing.T) {
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	testutil.Need(t, strings.Contains(string(cpuinfo), " aes"), "a processor with AES instructions")
	config := sshHost(t)
	strict := filepath.Join(t.TempDir(), "ssh_config")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, strict, string(text)+"Ciphers aes256-ctr\n")
	for _, c := range []struct {
		name, config, want string
		args               []string
	}{
		{"Default", config, "aes128-gcm@openssh.com", nil},
		{"OnlyAnotherIsAllowed", strict, "aes256-ctr", nil},
		{"UserAsksForAnother", config, "aes256-ctr", []string{"-o", "Ciphers=aes256-ctr"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			d, err := transport.NewDialer(transport.Address{Scheme: transport.SSH, Host: "peer"}, &transport.DialOptions{
				SSHArgs:       append([]string{"-F", c.config, "-v", "-E", log}, c.args...),
				RemoteCommand: "exit 3",
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := transport.Connect(t.Context(), d, nil); err == nil {
				t.Fatal("a remote command that fails made a session")
			}
			text, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), "cipher: "+c.want+" ") {
				t.Errorf("ssh did not use %s: %s", c.want, text)
			}
		})
	}
}

func TestSSHShellThatPrintsIsNamed(t *testing.T) {
	_, err := transport.Connect(t.Context(), sshDialer(t, sshHost(t), "echo 'Have a nice day'; sleep 1"), nil)
	if !errors.Is(err, transport.ErrNotMigrate) || !strings.Contains(err.Error(), "Have a nice day") {
		t.Errorf("error is %v, want what the shell printed", err)
	}
}

func TestSSHCommandFromEnvironmentIsShellText(t *testing.T) {
	out := filepath.Join(t.TempDir(), "args")
	t.Setenv("MIGRATE_SSH", `X='a b' sh -c 'echo "$X|$*" >'"'"'`+out+`'"'"'; exit 5' -`)
	addr, err := transport.ParseAddress("ssh://me@host.example:2222")
	if err != nil {
		t.Fatal(err)
	}
	d, err := transport.NewDialer(addr, &transport.DialOptions{SSHArgs: []string{"-i", "some key"}, Timeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = transport.Connect(t.Context(), d, nil)
	if failed, ok := errors.AsType[*transport.SSHError](err); !ok || failed.Status != 5 {
		t.Fatalf("error is %v, want status 5", err)
	}
	args, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"a b|-i some key -o BatchMode=yes", "ConnectTimeout=3", "-p 2222 -l me -- host.example migrate receive"} {
		if !strings.Contains(string(args), part) {
			t.Errorf("arguments %q lack %q", args, part)
		}
	}
}

func TestSSHEndsWithItsConnection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	t.Setenv("MIGRATE_SSH", `echo $$ >`+file+`; sleep 1000 & wait; :`)
	d, err := transport.NewDialer(transport.Address{Scheme: transport.SSH, Host: "peer"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pid := ""
	for timeout := 300 * time.Millisecond; pid == ""; timeout *= 2 { // as long as it takes to start it
		_, err = transport.Connect(t.Context(), d, &transport.ConnectOptions{Timeout: timeout})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("connect: %v", err)
		}
		text, err := os.ReadFile(file)
		if err != nil && (timeout > 20*time.Second || !errors.Is(err, os.ErrNotExist)) {
			t.Fatal(err)
		}
		pid = strings.TrimSpace(string(text))
	}
	if _, err := os.Stat("/proc/" + pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ssh lives on after its connection was given up: %v", err)
	}
}

func TestStdioEndsOneDirectionAlone(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T) (in, out *os.File, theirs net.Conn)
	}{{"Pipes", stdioPipes}, {"OneSocket", stdioSocket}} {
		t.Run(c.name, func(t *testing.T) {
			in, out, theirs := c.make(t)
			conn, err := transport.StdioConn(in, out)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("last words")); err != nil {
				t.Fatal(err)
			}
			if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			n, _ := theirs.Read(b)
			if string(b[:n]) != "last words" {
				t.Errorf("peer reads %q", b[:n])
			}
			if n, err := theirs.Read(b); n != 0 || err == nil {
				t.Errorf("peer reads %d bytes more, %v", n, err)
			}
			if _, err := theirs.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(b); err != nil || string(b[:n]) != "answer" {
				t.Errorf("read %q, %v", b[:n], err)
			}
			conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := conn.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read past its deadline: %v", err)
			}
		})
	}
}

func stdioPipes(t *testing.T) (in, out *os.File, theirs net.Conn) {
	t.Helper()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = transport.StdioConn(r, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	return in, out, theirs
}

func stdioSocket(t *testing.T) (in, out *os.File, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	files := make([]*os.File, 2)
	for i := range files {
		if files[i], err = ours.(*net.UnixConn).File(); err != nil {
			t.Fatal(err)
		}
	}
	return files[0], files[1], theirs
}
