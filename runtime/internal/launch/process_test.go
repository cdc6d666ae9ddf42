package launch_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/runtime/internal/launch"
)

func TestProcessIsWhatTheSpecSays(t *testing.T) {
	script := func(path, text string) specs.Hook {
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", text + " > " + path}, Env: []string{"PATH=/usr/bin:/bin"}}
	}
	tests := []struct {
		name   string
		change func(*box)
		script string
		want   string
	}{
		{"capabilities", func(b *box) {
			b.spec.Process.Capabilities = &specs.LinuxCapabilities{
				Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"},
				Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL", "CAP_NO_SUCH"},
			}
			b.spec.Process.User = specs.User{UID: 1000, GID: 1000}
		}, "grep ^Cap /proc/self/status | awk '{print $2}'", "0000000000000020\n0000000000000020\n0000000000000020\n0000000000000021\n0000000000000020\n"},
		{"user, groups and home", func(b *box) {
			b.spec.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 6}}
		}, "id -u; id -G; echo $HOME", "1000\n1001 5 6\n/home/bob\n"},
		{"no home of an unknown user", func(b *box) { b.spec.Process.User = specs.User{UID: 4321} }, "echo $HOME", "/\n"},
		{"last of two variables", func(b *box) {
			b.spec.Process.Env = []string{"A=1", "PATH=/bin", "A=2", "HOME="}
		}, "echo $A $HOME", "2 /root\n"},
		{"limits", func(b *box) {
			b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}}
		}, "ulimit -n; ulimit -Hn", "77\n88\n"},
		{"oom score", func(b *box) {
			adj := 321
			b.spec.Process.OOMScoreAdj = &adj
		}, "cat /proc/self/oom_score_adj", "321\n"},
		{"no new privileges", func(b *box) { b.spec.Process.NoNewPrivileges = true }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"personality", func(b *box) { b.spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }, "cat /proc/self/personality", "00000008\n"},
		{"scheduler", func(b *box) { b.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5} }, "awk '{print $41, $19}' /proc/self/stat", "3 5\n"},
		{"working directory that is made", func(b *box) { b.spec.Process.Cwd = "/new/dir" }, "pwd", "/new/dir\n"},
		{"working directory of the user alone", func(b *box) {
			dir := filepath.Join(b.launch.Rootfs, "private")
			must(b.t, os.Mkdir(dir, 0o700))
			must(b.t, os.Chown(dir, 1000, 1000))
			b.spec.Process.Cwd, b.spec.Process.User = "/private", specs.User{UID: 1000, GID: 1000}
		}, "pwd", "/private\n"},
		{"no proc in the container", func(b *box) { b.spec.Mounts = b.spec.Mounts[1:] }, "ls /proc | wc -l", "0\n"},
		{"seccomp", func(b *box) {
			b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno},
			}}
		}, "mkdir /x 2>&1; grep -E '^Seccomp:' /proc/self/status", "mkdir: can't create directory '/x': Operation not permitted\nSeccomp:\t2\n"},
		{"seccomp with no new privileges", func(b *box) {
			b.spec.Process.NoNewPrivileges = true
			b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"mkdir", "mkdirat", "statfs", "openat2", "pidfd_open"}, Action: specs.ActErrno},
			}}
		}, "mkdir /x 2>&1", "mkdir: can't create directory '/x': Operation not permitted\n"},
		{"a long filter under a small address space", func(b *box) {
			b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: 64 << 20, Hard: 64 << 20}}
			b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
			for value := range uint64(500) {
				b.spec.Linux.Seccomp.Syscalls = append(b.spec.Linux.Seccomp.Syscalls, specs.LinuxSyscall{
					Names: []string{"personality"}, Action: specs.ActErrno,
					Args: []specs.LinuxSeccompArg{{Index: 0, Value: value, Op: specs.OpEqualTo}},
				})
			}
		}, "ulimit -v", "65536\n"},
		{"hooks inside", func(b *box) {
			must(b.t, os.RemoveAll(filepath.Join(b.launch.Rootfs, "tmp")))
			must(b.t, os.Mkdir(filepath.Join(b.launch.Rootfs, "tmp"), 0o755))
			b.spec.Hooks = &specs.Hooks{
				CreateContainer: []specs.Hook{script(filepath.Join(b.launch.Rootfs, "tmp/one"), "hostname; cat")},
				StartContainer:  []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > /tmp/two; echo $PATH > /tmp/env"}}},
			}
		}, "grep -c creating /tmp/one; grep -c created /tmp/two; cat /tmp/env", "1\n1\n/bin\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, "sh", "-c", tt.script)
			tt.change(b)
			status, out := b.run()
			if out != tt.want {
				t.Errorf("exit status %d, the container printed:\n%s\nwant:\n%s", status, out, tt.want)
			}
		})
	}
}

func TestStarterIsAskedInOrder(t *testing.T) {
	b := newBox(t, "true")
	var calls []string
	var placed int
	b.launch.Place = func(pid int) error {
		placed = pid
		calls = append(calls, "place")
		return nil
	}
	b.launch.Network = func(int) error {
		calls = append(calls, "network")
		return nil
	}
	b.launch.Hooks = func(_ context.Context, kind string, pid int) error {
		if pid == placed {
			t.Error("hooks got the pid of the first process")
		}
		calls = append(calls, kind)
		return nil
	}
	if status, _ := b.run(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if got := strings.Join(calls, " "); got != "place network prestart createRuntime" {
		t.Errorf("calls: %s", got)
	}
}

func TestFailingCallbackEndsInit(t *testing.T) {
	reason := errors.New("no room")
	changes := map[string]func(*launch.Init){
		"place":   func(o *launch.Init) { o.Place = func(int) error { return reason } },
		"network": func(o *launch.Init) { o.Network = func(int) error { return reason } },
		"hooks":   func(o *launch.Init) { o.Hooks = func(context.Context, string, int) error { return reason } },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, "true")
			change(&b.launch)
			if _, _, err := b.create(); !errors.Is(err, reason) {
				t.Errorf("error is %v", err)
			}
			var ws unix.WaitStatus
			if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); err != unix.ECHILD {
				t.Errorf("a child is left: %d, %v", pid, err)
			}
		})
	}
}

func TestCancelEndsInit(t *testing.T) {
	b := newBox(t, "true")
	ctx, cancel := context.WithCancel(context.Background())
	b.launch.Hooks = func(ctx context.Context, _ string, _ int) error {
		cancel()
		<-ctx.Done()
		return nil
	}
	begin := time.Now()
	if _, err := launch.StartInit(ctx, &b.launch); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if time.Since(begin) > 5*time.Second {
		t.Error("it took seconds")
	}
}

func TestInitJoinsNamespacesByPath(t *testing.T) {
	first := newBox(t, "sleep", "100")
	p := first.running()
	second := newBox(t, "sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; cat /proc/1/cmdline | head -c 5")
	for i := range second.spec.Linux.Namespaces {
		ns := &second.spec.Linux.Namespaces[i]
		for kind, name := range map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.PIDNamespace: "pid"} {
			if ns.Type == kind {
				ns.Path = "/proc/" + itoa(p.Pid) + "/ns/" + name
			}
		}
	}
	want := ""
	for _, name := range []string{"net", "ipc"} {
		link, err := os.Readlink("/proc/" + itoa(p.Pid) + "/ns/" + name)
		must(t, err)
		want += link + "\n"
	}
	if _, out := second.run(); out != want+"sleep" {
		t.Errorf("the second container printed:\n%s\nwant:\n%ssleep", out, want)
	}
}

func TestSeccompListenerReachesItsAgent(t *testing.T) {
	b := newBox(t, "mkdir", "/made")
	agent := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", agent)
	must(t, err)
	defer listener.Close()
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: agent, ListenerMetadata: "for the test",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
	}
	got := make(chan *specs.ContainerProcessState, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		file, _ := conn.(*net.UnixConn).File()
		_, text := receiveFile(t, file)
		state := &specs.ContainerProcessState{}
		_ = json.Unmarshal([]byte(text), state)
		got <- state
	}()
	p, _, err := b.create()
	must(t, err)
	select {
	case state := <-got:
		if state.Metadata != "for the test" || state.Pid != p.Pid || state.Fds[0] != specs.SeccompFdName || state.State.ID != b.launch.ID {
			t.Errorf("the agent got %+v", state)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the agent got nothing")
	}
	must(t, p.Signal(unix.SIGKILL))
	_, _ = p.Wait()
}
