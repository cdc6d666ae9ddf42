package initproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/cyphar/filepath-securejoin/pathrs-lite/procfs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/runtime/internal/console"
	"github.com/livemigrate/migrate/runtime/internal/handshake"
	"github.com/livemigrate/migrate/runtime/internal/hooks"
	"github.com/livemigrate/migrate/runtime/internal/rootfs"
	"github.com/livemigrate/migrate/runtime/internal/sysctl"
)

// init makes the container around itself and becomes its first program.
func (p *process) init() error {
	if err := p.joinKeyring(); err != nil {
		return err
	}
	if p.LoopbackUp {
		if err := raiseLoopback(); err != nil {
			return fmt.Errorf("bring up loopback: %w", err)
		}
	}
	if err := p.makeRoot(); err != nil {
		return err
	}
	if err := p.nameHost(); err != nil {
		return err
	}
	if err := applyProfile(p.Process.ApparmorProfile); err != nil {
		return err
	}
	if err := sysctl.Write(p.Spec.Linux.Sysctl); err != nil {
		return err
	}
	if rootfs.HasNamespace(p.Spec, specs.MountNamespace) {
		if err := rootfs.Protect(p.Spec); err != nil {
			return err
		}
	}
	if err := p.setAttributes(); err != nil {
		return err
	}
	if err := p.ready(); err != nil {
		return err
	}
	fdDir, err := p.openFdDir()
	if err != nil {
		return err
	}
	path, err := p.dropRights()
	if err != nil {
		return err
	}
	p.log.Debug("init: closing the pipe to signal completion")
	if err := p.closeChannels(); err != nil {
		return err
	}
	fifo, err := p.awaitStart(fdDir)
	if err != nil {
		return err
	}
	// While start waits: when one fails start does, and the poststart hooks come after these.
	if err := p.runHooks(hooks.StartContainer, specs.StateCreated); err != nil {
		return err
	}
	if err := p.confirmStart(fifo); err != nil {
		return err
	}
	return p.become(path)
}

// makeRoot mounts the root and enters it; the hooks run in between, when both roots can be seen.
func (p *process) makeRoot() error {
	root, err := rootfs.Mount(&rootfs.Options{
		Spec: p.Spec, Rootfs: p.Rootfs, Bundle: p.Bundle, NoPivot: p.NoPivot, UserNS: p.UserNS, Rootless: p.Rootless,
		CgroupPath2: p.CgroupPath2, OpenSource: p.openSource, MapSource: p.mapSource, Log: p.log,
	})
	if err != nil {
		return err // which names the mount, in words that engines look for
	}
	if _, err := p.conn.Ask(&handshake.Message{Type: handshake.Hooks}, handshake.Continue); err != nil {
		return fmt.Errorf("wait for hooks: %w", err)
	}
	if err := unix.Fchdir(int(root.Dir().Fd())); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := p.runHooks(hooks.CreateContainer, specs.StateCreating); err != nil {
		return err
	}
	if err := root.Enter(); err != nil {
		return err
	}
	if p.Process.Cwd != "" {
		// We are inside: however the path is spelled it cannot lead out.
		if err := os.MkdirAll(p.Process.Cwd, 0o755); err != nil {
			return fmt.Errorf("make working directory: %w", err)
		}
	}
	if err := p.openTerminal(rootfs.BindConsole); err != nil {
		return err
	}
	if err := root.Finish(); err != nil {
		return err
	}
	unix.Umask(0o022)
	return nil
}

// openSource asks the starter to open a mount's source: it has rights on the host that a user namespace lacks.
func (p *process) openSource(index int) (*os.File, error) {
	answer, err := p.conn.Ask(&handshake.Message{Type: handshake.Mount, Index: index}, handshake.Mount)
	if err != nil {
		return nil, fmt.Errorf("ask for the source: %w", err)
	}
	if answer.File == nil {
		return nil, errors.New("ask for the source: the answer brought no file")
	}
	return answer.File, nil
}

// mapSource asks the starter to map the ids of a mount: that takes rights over the whole filesystem.
func (p *process) mapSource(index int, mnt *os.File) error {
	if _, err := p.conn.Ask(&handshake.Message{Type: handshake.Mount, Index: index, File: mnt}, handshake.Mount); err != nil {
		return fmt.Errorf("ask for the id maps: %w", err)
	}
	return nil
}

// openTerminal makes the console when the process is to have one, and hands out its own pidfd when that is asked for.
func (p *process) openTerminal(bind func(*os.File) error) error {
	if p.ConsoleFD > 0 {
		socket := os.NewFile(uintptr(p.ConsoleFD), "console-socket")
		if err := console.Setup(socket, p.Process.ConsoleSize, bind); err != nil {
			return fmt.Errorf("set up console: %w", err)
		}
	}
	if p.PidfdFD == 0 {
		return nil
	}
	name := "standard" // the words that engines know from runc
	if p.Kind == handshake.Exec {
		name = "setns"
	}
	socket := os.NewFile(uintptr(p.PidfdFD), "pidfd-socket")
	defer socket.Close()
	self, err := pidfd.Open(os.Getpid())
	if err != nil {
		return err
	}
	defer self.Close()
	if err := console.SendFile(socket, name, self); err != nil {
		return fmt.Errorf("send pidfd: %w", err)
	}
	return nil
}

func (p *process) nameHost() error {
	if p.Spec.Hostname != "" {
		if err := unix.Sethostname([]byte(p.Spec.Hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
	}
	if p.Spec.Domainname != "" {
		if err := unix.Setdomainname([]byte(p.Spec.Domainname)); err != nil {
			return fmt.Errorf("set domainname: %w", err)
		}
	}
	return nil
}

// runHooks runs hooks that live inside the container's namespaces.
func (p *process) runHooks(moment string, status specs.ContainerState) error {
	list := hooks.Of(p.Spec.Hooks, moment)
	if len(list) == 0 || p.State == nil {
		return nil
	}
	state := *p.State
	state.Pid, state.Status = os.Getpid(), status
	if moment == hooks.StartContainer {
		for i := range list {
			if list[i].Env == nil {
				// Not in the specification, but hooks have relied on the program's environment since runc had them.
				list[i].Env = p.env
			}
		}
	}
	return hooks.Run(context.Background(), p.Spec.Hooks, moment, &state)
}

// openFdDir opens our directory of descriptors on a procfs that is verified to be one, before rights are dropped and
// the filter is loaded: through it the fifo is opened later by nothing but openat(2), also where the image mounts no
// /proc or a false one. It shows the container's own processes only.
func (p *process) openFdDir() (*os.File, error) {
	proc, err := procfs.OpenProcRoot()
	if err != nil {
		return nil, fmt.Errorf("open procfs: %w", err)
	}
	defer proc.Close()
	dir, leave, err := proc.OpenThreadSelf("fd")
	if err != nil {
		return nil, fmt.Errorf("open own descriptors: %w", err)
	}
	leave() // this thread is never left
	return dir, nil
}

// awaitStart blocks until start opens the other end of the exec fifo. Until then the fifo is held by a descriptor that
// cannot be read or written; its path lies in the state directory, which the container never sees.
func (p *process) awaitStart(fdDir *os.File) (fifo int, err error) {
	name := strconv.Itoa(p.FifoFD)
	fd, err := unix.Openat(int(fdDir.Fd()), name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	for err == unix.EINTR {
		fd, err = unix.Openat(int(fdDir.Fd()), name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open exec fifo: %w", err)
	}
	// Before the hooks and execve: until Linux 4.10 the kernel made the process dumpable before it closed descriptors.
	return fd, errors.Join(unix.Close(p.FifoFD), fdDir.Close())
}

// confirmStart tells start that the program is about to run. A start that was killed while the hooks ran (EPIPE) has
// started the container all the same.
func (p *process) confirmStart(fifo int) error {
	if _, err := unix.Write(fifo, []byte("0")); err != nil && err != unix.EPIPE {
		return fmt.Errorf("write exec fifo: %w", err)
	}
	return os.NewSyscallError("close", unix.Close(fifo))
}
