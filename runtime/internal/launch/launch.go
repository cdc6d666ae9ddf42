// Package launch starts the processes of a container, from outside.
//
//  1. start our own program again, sealed, as `init` with a bootstrap socket
//  2. place it in its cgroups, send the bootstrap message, take init's pid (package bootstrap)
//  3. let the network be made, send the configuration
//  4. answer its requests (package handshake) until it closes the channel: init then waits on the exec fifo
//  5. start opens the fifo: [OpenFifo]
//
// When a step fails the process is killed and reaped, and the fifo removed.
package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/runtime/internal/handshake"
	"github.com/livemigrate/migrate/runtime/internal/initproc"
	"github.com/livemigrate/migrate/runtime/internal/rootfs"
)

// Init is what it takes to start a container's first process. Files stay the caller's.
type Init struct {
	Spec                  *specs.Spec
	ID                    string     // names the keyring, and the container to hooks; default: the state directory's name
	Bundle                string     // absolute
	Rootfs                string     // absolute
	StateDir              string     // the exec fifo is made here
	Stdin, Stdout, Stderr *os.File   // nil: the caller's own. /dev/null with a terminal
	ConsoleSocket         *os.File   // a connection that gets the pty's master by SCM_RIGHTS (process.terminal)
	PidfdSocket           *os.File   // a connection that gets a pidfd of the process
	ExtraFiles            []*os.File // become 3 and up
	NoPivot, NoNewKeyring bool
	NoSeccompFlags        bool // see seccomp.Compile
	Rootless              bool // the caller is not root
	CgroupPaths           map[string]string

	// Place is called as soon as there is a process, before it enters or makes namespaces: init is its child and
	// inherits the cgroups. The pid is not init's.
	Place func(pid int) error
	// Network is called when init and its namespaces exist, before all hooks. nil: nothing.
	Network func(pid int) error
	// Hooks is called with "prestart" and then "createRuntime", whether or not the spec has such hooks, when
	// everything is mounted and the root not yet entered. nil: nothing.
	Hooks func(ctx context.Context, kind string, pid int) error
	Log   *slog.Logger // nil discards
}

// Exec is what it takes to start a further process in a running container. Files stay the caller's.
type Exec struct {
	Spec                  *specs.Spec    // the container's
	Process               *specs.Process // complete: nothing is taken from Spec.Process
	ID                    string         // of the container: its keyring is joined
	Bundle                string
	InitPid               int    // whose namespaces are joined
	InitStart             uint64 // when it started: its number may have become another's
	Stdin, Stdout, Stderr *os.File
	ConsoleSocket         *os.File
	PidfdSocket           *os.File
	ExtraFiles            []*os.File
	NoNewKeyring          bool
	NoSeccompFlags        bool // as in Init
	Rootless              bool
	CgroupPaths           map[string]string

	Place func(pid int) error // as in Init
	Log   *slog.Logger        // nil discards
}

// StartInit starts a container's first process and returns when it waits on the exec fifo. An error that init met is
// returned as its text. The process is the caller's child.
func StartInit(ctx context.Context, o *Init) (*Process, error) {
	if o.ID == "" {
		o.ID = filepath.Base(o.StateDir)
	}
	spec := withLinux(o.Spec)
	message, err := createNamespaces(spec, o.Rootless)
	if err != nil {
		return nil, err
	}
	fifo, err := makeFifo(o.StateDir, spec)
	if err != nil {
		return nil, err
	}
	defer fifo.Close()
	s := &starter{
		message: message, stdio: stdio(spec.Process, o.Stdin, o.Stdout, o.Stderr), extra: o.ExtraFiles, fifo: fifo,
		console: o.ConsoleSocket, pidfd: o.PidfdSocket, log: orDiscard(o.Log),
		place: o.Place, network: o.Network, hooks: o.Hooks,
		config: &handshake.Config{
			Kind: handshake.Init, Spec: spec, Process: spec.Process, Rootfs: o.Rootfs, Bundle: o.Bundle, ID: o.ID,
			NoPivot: o.NoPivot, NoNewKeyring: o.NoNewKeyring, NoSeccompFlags: o.NoSeccompFlags, Rootless: o.Rootless,
			UserNS:      rootfs.HasNamespace(spec, specs.UserNamespace),
			LoopbackUp:  message.CloneFlags&unix.CLONE_NEWNET != 0,
			CgroupPath2: o.CgroupPaths[""],
			State:       ociState(spec, o.ID, o.Bundle, 0),
		},
	}
	p, err := s.start(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unable to start container process: %w", err), os.Remove(fifo.Name()))
	}
	return p, nil
}

// StartExec starts a further process and returns when it is about to execute its program, or has. The process is the
// caller's child.
func StartExec(ctx context.Context, o *Exec) (*Process, error) {
	message, err := joinNamespaces(o.InitPid, o.Process, o.Rootless)
	if err != nil {
		return nil, err
	}
	s := &starter{
		message: message, stdio: stdio(o.Process, o.Stdin, o.Stdout, o.Stderr), extra: o.ExtraFiles,
		console: o.ConsoleSocket, pidfd: o.PidfdSocket, log: orDiscard(o.Log), place: o.Place,
		joined: func() error { return sameProcess(o.InitPid, o.InitStart) },
		config: &handshake.Config{
			Kind: handshake.Exec, Spec: withLinux(o.Spec), Process: o.Process, Bundle: o.Bundle, ID: o.ID,
			NoNewKeyring: o.NoNewKeyring, NoSeccompFlags: o.NoSeccompFlags, Rootless: o.Rootless,
			UserNS: rootfs.HasNamespace(o.Spec, specs.UserNamespace),
			State:  ociState(o.Spec, o.ID, o.Bundle, o.InitPid),
		},
	}
	p, err := s.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("unable to start container process: %w", err)
	}
	return p, nil
}

// InitMain is `migrate init`, the program's part inside. It never returns.
func InitMain() { initproc.Main() }

// withLinux spares everybody below the question whether the spec has a linux section.
func withLinux(spec *specs.Spec) *specs.Spec {
	if spec.Linux != nil {
		return spec
	}
	own := *spec
	own.Linux = &specs.Linux{}
	return &own
}

// stdio fills in the caller's own descriptors. A process with a terminal gets none of them: its own pty replaces them.
func stdio(process *specs.Process, in, out, err *os.File) [3]*os.File {
	if process.Terminal {
		return [3]*os.File{}
	}
	files := [3]*os.File{in, out, err}
	for i, own := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if files[i] == nil {
			files[i] = own
		}
	}
	return files
}

func ociState(spec *specs.Spec, id, bundle string, pid int) *specs.State {
	return &specs.State{
		Version: specs.Version, ID: id, Status: specs.StateCreating, Pid: pid, Bundle: bundle, Annotations: spec.Annotations,
	}
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
