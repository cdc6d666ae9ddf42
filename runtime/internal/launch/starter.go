package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime/internal/attribute"
	"github.com/livemigrate/migrate/runtime/internal/bootstrap"
	"github.com/livemigrate/migrate/runtime/internal/handshake"
	"github.com/livemigrate/migrate/runtime/internal/sealed"
)

// starter carries one process from its first fork to the end of the handshake.
type starter struct {
	message *bootstrap.Message
	config  *handshake.Config
	stdio   [3]*os.File // nil: /dev/null
	extra   []*os.File
	fifo    *os.File
	console *os.File
	pidfd   *os.File
	log     *slog.Logger

	place   func(pid int) error
	joined  func() error // called when the namespaces are joined, before the process is told anything
	network func(pid int) error
	hooks   func(ctx context.Context, kind string, pid int) error

	boot *os.File        // our end of the bootstrap socket
	conn *handshake.Conn // our end of the second channel
	logs chan struct{}   // closed when init's log has ended
	init *os.Process
}

// start runs the steps of the package's comment.
func (s *starter) start(ctx context.Context) (_ *Process, err error) {
	first, err := s.fork()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.closeChannels()) }()
	// What a cancelled context ends is the process: every read below then sees the end of its channel.
	stop := context.AfterFunc(ctx, func() { _ = first.Kill() })
	pid, err := s.bootstrap(first)
	stop()
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	if s.init, err = os.FindProcess(pid); err != nil {
		return nil, s.failed(ctx, fmt.Errorf("open init: %w", err))
	}
	stop = context.AfterFunc(ctx, func() { _ = s.init.Kill() })
	defer stop()
	p, err := s.configure(ctx, pid)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return p, nil
}

// configure takes init from the bootstrap's end to its own.
func (s *starter) configure(ctx context.Context, pid int) (*Process, error) {
	start, err := process.StartTime(pid)
	if err != nil {
		return nil, err
	}
	if s.joined != nil {
		if err := s.joined(); err != nil {
			return nil, err
		}
	}
	if err := s.bindFinal(pid); err != nil {
		return nil, err
	}
	if s.network != nil {
		if err := s.network(pid); err != nil {
			return nil, err
		}
	}
	if err := json.NewEncoder(s.boot).Encode(s.config); err != nil {
		return nil, fmt.Errorf("send configuration: %w", err)
	}
	if err := s.converse(ctx); err != nil {
		return nil, err
	}
	return &Process{Pid: pid, StartTime: start, process: s.init}, nil
}

// fork starts our own program as `init`.
func (s *starter) fork() (_ *os.Process, err error) {
	exe, err := sealed.Self(s.log)
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
	}()
	var childBoot, childSync, childLog, ourLog *os.File
	if s.boot, childBoot, err = socketpair(); err != nil {
		return nil, err
	}
	theirs = append(theirs, childBoot)
	if s.conn, childSync, err = handshake.Pair(); err != nil {
		return nil, errors.Join(err, s.boot.Close())
	}
	theirs = append(theirs, childSync)
	if ourLog, childLog, err = os.Pipe(); err != nil {
		return nil, errors.Join(fmt.Errorf("make log pipe: %w", err), s.boot.Close(), s.conn.Close())
	}
	theirs = append(theirs, childLog)

	files, null, err := s.files(childBoot, childSync, childLog)
	theirs = append(theirs, null...)
	if err != nil {
		return nil, errors.Join(err, ourLog.Close(), s.boot.Close(), s.conn.Close())
	}
	first, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), []string{"migrate", "init"}, &os.ProcAttr{
		Files: files,
		Env: []string{
			bootstrap.EnvFD + "=" + strconv.Itoa(3+len(s.extra)),
			"GOMAXPROCS=1", // and Go does not look for its share of CPUs in the cgroup
		},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start own program: %w", err), ourLog.Close(), s.boot.Close(), s.conn.Close())
	}
	s.logs = make(chan struct{})
	go func() {
		defer close(s.logs)
		forwardLogs(ourLog, s.log)
	}()
	return first, nil
}

// files lays out the descriptors of the process: its program's, then those of the handshake. null are those among them
// that were opened here, for the caller to close, also after an error.
func (s *starter) files(boot, sync, log *os.File) (files, null []*os.File, err error) {
	for _, f := range s.stdio {
		if f == nil {
			if f, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
				return nil, null, err
			}
			null = append(null, f)
		}
		files = append(files, f)
	}
	files = append(files, s.extra...)
	add := func(f *os.File) int {
		if f == nil {
			return 0
		}
		files = append(files, f)
		return len(files) - 1
	}
	add(boot)
	c := s.config
	c.PassedFiles = len(s.extra)
	c.SyncFD, c.LogFD, c.FifoFD = add(sync), add(log), add(s.fifo)
	c.PidfdFD = add(s.pidfd)
	if c.Process.Terminal {
		if s.console == nil {
			return nil, null, errors.New("process.terminal is set but there is no console socket")
		}
		c.ConsoleFD = add(s.console)
	}
	c.Debug = s.log.Enabled(context.Background(), slog.LevelDebug)
	return files, null, nil
}

// bootstrap takes the first process through the C stage and reaps it. On an error it is dead.
func (s *starter) bootstrap(first *os.Process) (pid int, err error) {
	defer func() {
		if err != nil {
			_ = first.Kill()
		}
		if _, waitErr := first.Wait(); err == nil && waitErr != nil {
			err = fmt.Errorf("wait for bootstrap: %w", waitErr)
		}
	}()
	s.message.Debug = s.log.Enabled(context.Background(), slog.LevelDebug)
	data, err := s.message.Encode()
	if err != nil {
		return 0, err
	}
	cpus := s.affinity()
	// Before it moves: the work of joining is then not done on the CPUs of the container.
	if err := attribute.SetAffinity(first.Pid, cpus.Initial); err != nil {
		return 0, fmt.Errorf("set initial CPU affinity: %w", err)
	}
	if s.place != nil {
		if err := s.place(first.Pid); err != nil {
			return 0, err
		}
	}
	if cpus.Initial == "" && cpus.Final == "" {
		// Free of the runtime's own affinity, now that its cpuset limits it.
		if err := attribute.ResetAffinity(first.Pid); err != nil {
			s.log.Warn("the process may keep the runtime's CPU affinity", "error", err)
		}
	}
	if _, err := s.boot.Write(data); err != nil {
		return 0, fmt.Errorf("send bootstrap message: %w", err)
	}
	pid, err = bootstrap.ReadReply(s.boot, s.log)
	if errors.Is(err, io.EOF) {
		err = errors.New("bootstrap died without a word (killed, or out of memory)")
	}
	return pid, err
}

// affinity is what the process is to be bound to; only later processes of a container are.
func (s *starter) affinity() specs.CPUAffinity {
	if a := s.config.Process.ExecCPUAffinity; a != nil && s.config.Kind == handshake.Exec {
		return *a
	}
	return specs.CPUAffinity{}
}

// bindFinal comes when the process is in its cgroup, whose cpuset has the last word.
func (s *starter) bindFinal(pid int) error {
	if err := attribute.SetAffinity(pid, s.affinity().Final); err != nil {
		return fmt.Errorf("set final CPU affinity: %w", err)
	}
	return nil
}

// failed kills and reaps init, and finds the best words for what happened: a cancelled context, else what init itself
// reported late over the bootstrap socket, else err.
func (s *starter) failed(ctx context.Context, err error) error {
	if s.init != nil {
		_ = s.init.Kill()
		_, _ = s.init.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errDied) {
		_, lateErr := bootstrap.ReadReply(s.boot, s.log)
		if late, ok := errors.AsType[*bootstrap.Error](lateErr); ok {
			return late
		}
	}
	return err
}

// closeChannels ends the conversation and waits for the log, which init has closed or left by dying.
func (s *starter) closeChannels() error {
	err := errors.Join(s.boot.Close(), s.conn.Close())
	<-s.logs
	return err
}

// socketpair makes the bootstrap socket. Our end does not block a thread.
func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make bootstrap socket: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), "bootstrap"), os.NewFile(uintptr(fds[1]), "bootstrap-child"), nil
}
