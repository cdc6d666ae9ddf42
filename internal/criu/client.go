// Package criu is a client of CRIU's own RPC, spoken with a `criu swrk FD` child over a SOCK_SEQPACKET socket.
//
//  1. Start runs the child ahead of time; it waits for its first request and costs nothing meanwhile.
//  2. FeatureCheck, Version and the CPUInfo calls leave it waiting for the next request.
//  3. Dump, PreDump and Restore send their request and return a Call.
//  4. Call.Next returns CRIU's notifications one by one, and io.EOF at success. CRIU stands still until each is
//     answered with Call.Answer: the answer to "post-dump" and to "post-restore" decides what becomes of the tree.
//  5. Close ends the child, if it has not ended by itself, and reaps it.
//
// A refused or failed request is an *Error with the line of CRIU's log that explains it.
package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/sys/seqpacket"
)

// The messages of CRIU's RPC, so that a caller names one package.
type (
	// Options are those of a request.
	Options = rpc.CriuOpts
	// ExtMount names a mount whose content is not in the images: a dump {path, name}, a restore {name, source}.
	ExtMount = rpc.ExtMountMap
	// InheritFd gives a descriptor of the child's for an external resource.
	InheritFd = rpc.InheritFd
	// JoinNS is a namespace that the restored tasks join by path.
	JoinNS = rpc.JoinNamespace
	// CgroupRoot moves the images' cgroups of one controller below another.
	CgroupRoot = rpc.CgroupRoot
	// PageServer is where CRIU's page server is, or is to be.
	PageServer = rpc.CriuPageServerInfo
	// CgroupMode is what becomes of cgroups.
	CgroupMode = rpc.CriuCgMode
	// NetworkLock is how CRIU keeps packets away from sockets that it works on.
	NetworkLock = rpc.CriuNetworkLockMethod
)

// FirstFile is the descriptor that StartOptions.Files[0] has in the child. 0-2 are its stdio, 3 is the RPC socket.
const FirstFile = 4

// exitGrace is how long a child that has answered may take to exit before it is killed.
const exitGrace = 10 * time.Second

// StartOptions say how the child is run. The zero value is enough for everything but a restore.
type StartOptions struct {
	// Path of the program; see Locate.
	Path string
	// Stdin is the child's descriptor 0: with shell_job, the terminal that the restored session gets. nil is /dev/null.
	Stdin *os.File
	// Files are the child's descriptors from FirstFile on, for inherit_fd and ps-socket. They stay the caller's.
	Files []*os.File
	// Foreground leaves the child in the caller's process group, as shell_job needs: the restored session takes it over.
	// Otherwise it has a group of its own, and a terminal's Ctrl-C cannot kill it halfway through a dump.
	Foreground bool
	// NetNS is the network namespace that the child is in; nil is the caller's. What is in the same one is no namespace of its
	// own to CRIU: a dump saves nothing of it, a restore leaves the processes in it.
	NetNS *os.File
	// Grip makes Hold work.
	Grip bool
	// SmallPages has the child, and what it restores until that runs, go without transparent huge pages: for a restore with lazy
	// pages. The images hold some pages of areas whose others come later (the one that a thread's stack pointer is in, which for
	// Go is in the heap). Where the kernel gives huge pages unasked, CRIU's write to such a page brings a whole huge one, and the
	// lazy pages around it count as there: zeros. CRIU itself turns them off only for images that have a parent.
	SmallPages bool
	// Limits lets the child read the limits of other users' processes on a host without CAP_SYS_RESOURCE: for a dump.
	Limits bool
	Log    *slog.Logger // nil discards
}

// Client is one child. It serves one request at a time.
type Client struct {
	conn   *seqpacket.Conn
	grip   *seqpacket.Grip // nil: not asked for
	cmd    *exec.Cmd
	stderr *tail
	log    *slog.Logger

	pretends  bool
	inNetwork bool

	reap   sync.Once
	exited chan struct{}
	status error // of Wait; read after exited
}

// Start runs `criu swrk` and returns at once; the child waits for a request. ctx is not the child's life: Close is.
func Start(ctx context.Context, o *StartOptions) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	conn, theirs, err := seqpacket.Pair()
	if err != nil {
		return nil, fmt.Errorf("start criu: %w", err)
	}
	// The default configuration files (/etc/criu/default.conf, ~/.criu/default.conf) would silently set whatever a
	// request leaves open.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), o.Path, "--no-default-config", "swrk", "3")
	c := &Client{conn: conn, cmd: cmd, stderr: &tail{}, log: o.Log, exited: make(chan struct{})}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	cmd.ExtraFiles = append([]*os.File{theirs}, o.Files...)
	if o.Grip {
		if c.grip, err = seqpacket.NewGrip(); err != nil {
			return nil, errors.Join(fmt.Errorf("start criu: %w", err), conn.Close(), theirs.Close())
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.grip.File())
	}
	if o.Stdin != nil {
		cmd.Stdin = o.Stdin
	}
	cmd.Stderr = c.stderr
	// A restored task may hold the child's stderr for a moment after the child is gone.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !o.Foreground}
	handed := []io.Closer{theirs}
	if o.Limits {
		if library := c.lendLimits(); library != nil {
			handed = append(handed, library)
		}
	}
	begin := cmd.Start
	if o.SmallPages {
		begin = func() error { return process.WithSmallPages(cmd.Start) }
	}
	if o.NetNS != nil {
		c.inNetwork = true
		err = netns.Do(o.NetNS, begin)
	} else {
		err = begin()
	}
	for _, file := range handed {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		if cmd.Process != nil { // it runs, but the thread that started it could not come home
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		return nil, errors.Join(fmt.Errorf("start criu: %w", err), c.hangUp())
	}
	go func() {
		c.status = cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

// InNetwork tells a child that was started in another network namespace: StartOptions.NetNS.
func (c *Client) InNetwork() bool { return c.inNetwork }

// Pid is the child's. CRIU traces the tasks of a dump; while it lives they stand still.
func (c *Client) Pid() int {
	return c.cmd.Process.Pid
}

// Killed tells whether the child has ended without finishing its request: by a signal, or by a kill of ours.
func (c *Client) Killed() bool {
	select {
	case <-c.exited:
		status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
		return ok && status.Signaled()
	default:
		return false
	}
}

// Close ends the conversation and reaps the child: one that has not answered is killed. It may be called twice.
func (c *Client) Close() error {
	return c.end(0)
}

// end closes the socket, gives the child a while to exit by itself, kills it then, and reaps it.
func (c *Client) end(grace time.Duration) error {
	var err error
	c.reap.Do(func() {
		err = c.hangUp()
		select {
		case <-c.exited:
			return
		case <-time.After(grace):
		}
		if killErr := c.cmd.Process.Kill(); killErr != nil && !errors.Is(killErr, os.ErrProcessDone) {
			err = errors.Join(err, fmt.Errorf("kill criu: %w", killErr))
		}
		<-c.exited
	})
	<-c.exited
	return err
}

func (c *Client) hangUp() error {
	var err error
	if c.grip != nil {
		err = c.grip.Close()
	}
	return errors.Join(err, c.conn.Close())
}

// Hold makes that from now on the child does not go on by itself when this process is gone. It waits in its next notification, until
// somebody kills it. CRIU does not listen to the answer to pre-resume, nor to the lack of one: without this, tasks would run
// that nobody has let run.
func (c *Client) Hold() error {
	if c.grip == nil {
		return nil
	}
	return c.grip.Hold(c.conn)
}

// Release ends Hold.
func (c *Client) Release() error {
	if c.grip == nil {
		return nil
	}
	return c.grip.Release()
}

// reapPatience is how long killed processes may take to be gone.
const reapPatience = 10 * time.Second

// ReapGroup kills and reaps the child's process group after the child is gone: helpers, and a restored root that has no
// session of its own yet, whose pid nobody knows when the child was killed right after it made it. Only a child that was
// not started in the foreground has a group.
func (c *Client) ReapGroup() error {
	if !c.cmd.SysProcAttr.Setpgid {
		return nil
	}
	group := -c.cmd.Process.Pid
	for deadline := time.Now().Add(reapPatience); ; time.Sleep(time.Millisecond) {
		if err := syscall.Kill(group, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill criu's processes: %w", err)
		}
		pid, err := syscall.Wait4(group, nil, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.ECHILD):
			return nil
		case pid == 0 && time.Now().After(deadline):
			return errors.New("processes of criu's do not end")
		}
	}
}

// send and receive are one message each. When ctx ends the child is killed and reaped: it would not listen otherwise.
func (c *Client) send(ctx context.Context, request *rpc.CriuReq) error {
	message, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode criu request: %w", err)
	}
	if err := c.conn.Send(ctx, message); err != nil {
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), c.Close())
		}
		return c.gone(err)
	}
	return nil
}

func (c *Client) receive(ctx context.Context) (*rpc.CriuResp, []*os.File, error) {
	message, files, err := c.conn.Recv(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, errors.Join(ctx.Err(), c.Close())
		}
		return nil, nil, c.gone(err)
	}
	response := &rpc.CriuResp{}
	if err := proto.Unmarshal(message, response); err != nil {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		return nil, nil, fmt.Errorf("decode criu response: %w", err)
	}
	return response, files, nil
}

// gone explains a conversation that the child ended: how it exited and its last words.
func (c *Client) gone(err error) error {
	end := c.end(exitGrace)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = ErrGone
	}
	if c.status != nil {
		err = fmt.Errorf("%w (%w)", err, c.status)
	}
	if words := c.stderr.String(); words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	return errors.Join(err, end)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - tailSize; extra > 0 {
		t.buf = t.buf[extra:]
	}
	return len(p), nil
}

// String is the last line that says something.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.buf), []byte("\n"))
	return string(bytes.TrimSpace(lines[len(lines)-1]))
}
