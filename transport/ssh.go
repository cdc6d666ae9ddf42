package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/sys/socket"
)

const (
	// defaultRemoteCommand is what ssh runs on the peer.
	defaultRemoteCommand = "migrate receive"
	// sshCommandEnv names the ssh to use, like git's GIT_SSH_COMMAND.
	sshCommandEnv = "MIGRATE_SSH"
	// sshExitPatience is how long ssh's exit status may come after the end of its output.
	sshExitPatience = 2 * time.Second
	// sshClosePatience is how long ssh may take to end by itself once both its input and output are closed.
	sshClosePatience = 500 * time.Millisecond
	// sshTail is how much of ssh's last words is kept.
	sshTail = 4 << 10
)

// SSHError is an ssh that ended by itself. Status 255 is ssh's own failure, 127 a remote command that does not exist.
// It is an ErrLinkLost.
type SSHError struct {
	Peer    string
	Command string // the remote one
	Status  int    // -1: ended by a signal
	Stderr  string // the last lines that ssh and the remote command printed
}

func (e *SSHError) Error() string {
	said := strings.Join(strings.FieldsFunc(e.Stderr, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	switch {
	case e.Status == 127:
		return fmt.Sprintf("%s has no %q: install migrate there, or name its path as the remote command (%s)", e.Peer, e.Command, said)
	case said == "":
		return fmt.Sprintf("ssh to %s ended with status %d", e.Peer, e.Status)
	case e.Status == 255:
		return "ssh: " + said
	default:
		return fmt.Sprintf("%q on %s ended with status %d: %s", e.Command, e.Peer, e.Status, said)
	}
}

func (e *SSHError) Unwrap() error { return ErrLinkLost }

type sshDialer struct {
	addr    Address
	o       DialOptions
	ciphers func() string // the value of ssh's option, or nothing; found out once
}

func newSSHDialer(addr Address, o *DialOptions) *sshDialer {
	d := &sshDialer{addr: addr, o: *o}
	if d.o.SSHCommand == "" {
		d.o.SSHCommand = os.Getenv(sshCommandEnv)
	}
	if d.o.SSHCommand == "" {
		d.o.SSHCommand = "ssh"
	}
	if d.o.RemoteCommand == "" {
		d.o.RemoteCommand = defaultRemoteCommand
	}
	d.ciphers = sync.OnceValue(d.fasterCiphers)
	return d
}

func (d *sshDialer) String() string { return d.addr.String() }

// DialConn starts one ssh. Whether it gets through is seen by the first read.
func (d *sshDialer) DialConn(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	// Two sockets, because ssh ends its output by closing it, which with one socket for both would not be seen.
	in, sshIn, err := socket.Pair()
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	defer sshIn.Close()
	out, sshOut, err := socket.Pair()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dial: %w", err), in.Close())
	}
	defer sshOut.Close()
	c := &sshConn{UnixConn: in, out: out, peer: d.addr.Host, command: d.o.RemoteCommand, exited: make(chan struct{})}
	c.cmd = d.command(context.WithoutCancel(ctx), d.args()...) // ssh outlives the dialing
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = sshIn, sshOut, &c.stderr
	// A group of its own: the terminal's Ctrl-C is for us to handle, and must not cut the link under a handover.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.WaitDelay = time.Second // a background ssh master may keep stderr open
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start ssh: %w", err), c.closeSockets())
	}
	go c.wait()
	return c, nil
}

// command is ssh with these arguments. The shell splits the user's command line as it would at a prompt, with quotes and
// variables.
func (d *sshDialer) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "sh", append([]string{"-c", d.o.SSHCommand + ` "$@"`, "ssh"}, args...)...)
}

// args are ssh's. The user's configuration holds, except where it would break a program that talks through ssh.
func (d *sshDialer) args() []string {
	args := append([]string(nil), d.o.SSHArgs...)
	seconds := max(1, int(d.o.Timeout/time.Second))
	for _, option := range []string{
		"BatchMode=yes", // ask nothing: nobody may be there to answer
		"ConnectTimeout=" + strconv.Itoa(seconds),
		"ControlMaster=no", // use a shared connection that exists; be none, or the other lanes would end with this one
		"ClearAllForwardings=yes",
		"ForwardAgent=no",
		"ForwardX11=no",
		"PermitLocalCommand=no",
		"RemoteCommand=none",
		"RequestTTY=no", // a terminal would change bytes
	} {
		args = append(args, "-o", option)
	}
	if ciphers := d.ciphers(); ciphers != "" {
		args = append(args, "-o", "Ciphers="+ciphers)
	}
	return append(append(args, d.destination()...), d.o.RemoteCommand)
}

func (d *sshDialer) destination() []string {
	var args []string
	if d.addr.Port != "" {
		args = append(args, "-p", d.addr.Port)
	}
	if d.addr.User != "" {
		args = append(args, "-l", d.addr.User)
	}
	return append(args, "--", d.addr.Host)
}

// fastCipher is what ssh is asked to prefer: with AES instructions it takes a third of the processor time of OpenSSH's
// first choice, chacha20-poly1305.
const fastCipher = "aes128-gcm@openssh.com"

// sshQueryPatience is how long ssh may take to tell its settings; a "Match exec" in them runs programs.
const sshQueryPatience = 3 * time.Second

// fasterCiphers is the list of ciphers that ssh would use for this peer, with the fast one first. The list itself stays
// the user's and the administrator's: what they do not allow is not used, and -o Ciphers in SSHCommand or SSHArgs wins.
func (d *sshDialer) fasterCiphers() string {
	program, _, _ := strings.Cut(d.o.SSHCommand, " ")
	if filepath.Base(program) != "ssh" || !hasAES() { // another program may not know -G, and do something else
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), sshQueryPatience)
	defer cancel()
	query := d.command(ctx, slices.Concat(d.o.SSHArgs, []string{"-G"}, d.destination())...)
	query.WaitDelay = time.Second
	settings, err := query.Output()
	if err != nil {
		return "" // ssh will say why when it is used
	}
	for line := range strings.Lines(string(settings)) {
		if list, ok := strings.CutPrefix(line, "ciphers "); ok {
			return putFirst(strings.Split(strings.TrimSpace(list), ","), fastCipher)
		}
	}
	return ""
}

// hasAES tells whether the processor has the instructions for AES-GCM. The kernel knows: a package that asks the processor
// does so at every start of the program, which in a virtual machine takes long.
func hasAES() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(info)) {
		name, list, _ := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); name == "flags" || name == "Features" { // x86, ARM
			flags := strings.Fields(list)
			return slices.Contains(flags, "aes") && (slices.Contains(flags, "pclmulqdq") || slices.Contains(flags, "pmull"))
		}
	}
	return false
}

// putFirst returns the list with one of its members moved to the front, or nothing if that changes nothing.
func putFirst(list []string, first string) string {
	i := slices.Index(list, first)
	if i <= 0 {
		return ""
	}
	return strings.Join(slices.Concat([]string{first}, list[:i], list[i+1:]), ",")
}

// sshConn is the input and output of one ssh. The embedded connection, for writing, keeps writev.
type sshConn struct {
	*net.UnixConn
	out     *net.UnixConn
	peer    string
	command string
	cmd     *exec.Cmd
	stderr  tail
	exited  chan struct{} // closed after waitErr is set
	waitErr error
	closing sync.Once
}

func (c *sshConn) PeerName() string { return c.peer }

func (c *sshConn) wait() {
	c.waitErr = c.cmd.Wait()
	close(c.exited)
}

// Read reads from ssh. At the end it says how ssh ended, if not well.
func (c *sshConn) Read(b []byte) (int, error) {
	n, err := c.out.Read(b)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		return n, c.explain(err)
	}
	return n, err
}

// Write writes to ssh, for preambles; frames go by writev, and their reader learns how ssh ended.
func (c *sshConn) Write(b []byte) (int, error) {
	n, err := c.UnixConn.Write(b)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return n, c.explain(err)
	}
	return n, err
}

// explain waits a moment for ssh's exit status, which comes right after the end of its output.
func (c *sshConn) explain(err error) error {
	select {
	case <-c.exited:
	case <-time.After(sshExitPatience):
		return err
	}
	exit, ok := errors.AsType[*exec.ExitError](c.waitErr)
	if !ok {
		return err
	}
	return &SSHError{Peer: c.peer, Command: c.command, Status: exit.ExitCode(), Stderr: c.stderr.String()}
}

func (c *sshConn) SetReadDeadline(t time.Time) error { return c.out.SetReadDeadline(t) }

func (c *sshConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close ends ssh: first by the end of its input, then by force.
func (c *sshConn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		err = c.closeSockets()
		select {
		case <-c.exited:
		case <-time.After(sshClosePatience):
			c.kill()
		}
	})
	return err
}

// Abort ends ssh by force.
func (c *sshConn) Abort() {
	c.closing.Do(func() {
		c.kill()
		_ = c.closeSockets() // nothing is expected of it any more
	})
}

func (c *sshConn) closeSockets() error { return errors.Join(c.UnixConn.Close(), c.out.Close()) }

func (c *sshConn) kill() {
	select {
	case <-c.exited:
		return // the process id may belong to another by now
	default:
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // gone already is as good
	<-c.exited
}

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if extra := len(t.b) - sshTail; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(t.b), "?"))
}
