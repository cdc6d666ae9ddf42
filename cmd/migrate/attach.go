package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/console"
	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate/internal/monitor"
	window "github.com/livemigrate/migrate/internal/sys/terminal"
	"github.com/livemigrate/migrate/runtime"
)

type attachFlags struct {
	detachKeys string
	noStdin    bool
	sigProxy   bool
}

func newAttachCommand(g *globals) *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use:   "attach [flags] CONTAINER",
		Short: "Show the output of a detached container, and give it input",
		Long: `Join a container that run or restore has started with --detach and --log-file, or that a move has brought here: its output from now on comes here too, and what is typed goes to its terminal, or to the standard input of one that was started with --interactive.

The exit status is the program's when it ends, and 0 after the detach keys, or when the container moves to another host. The container runs on without its clients.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := attach(cmd.Context(), g, args[0], &f)
			if err != nil {
				return err
			}
			return exit(status)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.detachKeys, "detach-keys", "ctrl-p,ctrl-q", "keys that detach: letters, and ctrl-a to ctrl-z, ctrl-@, ctrl-[, ctrl-\\, ctrl-], ctrl-^, ctrl-_; none when empty")
	flags.BoolVar(&f.noStdin, "no-stdin", false, "do not give the container input")
	flags.BoolVar(&f.sigProxy, "sig-proxy", true, "without a terminal: pass signals on to the container's program, if it is given input; SIGHUP never")
	return cmd
}

// arrivalPatience is for a container that is here already, but whose monitor has something to do before.
const arrivalPatience = 3 * time.Second

func attach(ctx context.Context, g *globals, id string, f *attachFlags) (status int, err error) {
	keys, err := parseDetachKeys(f.detachKeys)
	if err != nil {
		return 0, err
	}
	c, err := g.container(id)
	if err != nil {
		return 0, err
	}
	a, err := join(ctx, c)
	if err != nil {
		return 0, err
	}
	defer func() { _ = a.Close() }()
	v := &viewer{Attachment: a, container: c, flags: f, keys: keys, ends: make(chan seen, 1), detached: make(chan struct{})}
	return v.run(ctx)
}

// join finds the container's monitor, or says whose its streams are.
func join(ctx context.Context, c *runtime.Container) (*monitor.Attachment, error) {
	for deadline := time.Now().Add(arrivalPatience); ; time.Sleep(50 * time.Millisecond) {
		status, err := c.Status()
		if err != nil {
			return nil, err
		}
		if status == runtime.Stopped {
			return nil, fmt.Errorf("attach to %s, which is %s: %w", c.ID(), status, runtime.ErrNotRunning)
		}
		a, err := monitor.Attach(ctx, c.StateDir())
		switch logFile := c.State().LogFile; {
		case !errors.Is(err, monitor.ErrNoMonitor):
			return a, err
		case logFile == "":
			return nil, fmt.Errorf("%w: its standard streams belong to the program that started it; use that one's attach, or start it with run --detach --log-file FILE", err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("%w: it has been killed, or the container's memory is still on its way here; the output is in %s", err, logFile)
		}
	}
}

// seen is an event of the monitor's, or the end of the connection.
type seen struct {
	*monitor.Event
	err error
}

// viewer connects this program's standard streams with an attached container.
type viewer struct {
	*monitor.Attachment
	container *runtime.Container
	flags     *attachFlags
	keys      *detachKeys
	ours      console.Console // nil unless it is in raw mode
	raw       atomic.Bool     // it is
	ends      chan seen       // the last event: the others are shown where they come, which may have to wait for our reader
	detached  chan struct{}   // closed when the keys were typed
}

func (v *viewer) run(ctx context.Context) (status int, err error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, append(forwarded(), syscall.SIGINT, syscall.SIGTERM)...)
	if v.typed() && v.Terminal {
		if v.ours, err = console.ConsoleFromFile(os.Stdin); err == nil {
			if err := v.ours.SetRaw(); err != nil {
				return 0, fmt.Errorf("use the terminal of the caller: %w", err)
			}
			v.raw.Store(true)
			defer v.leave()
		} else if !errors.Is(err, console.ErrNotAConsole) {
			return 0, fmt.Errorf("use the terminal of the caller: %w", err)
		}
	}
	v.resize()
	go v.receive()
	if v.typed() {
		go v.send()
	}
	for {
		select {
		case e := <-v.ends:
			return v.ended(e)
		case s := <-signals:
			if status, over := v.signalled(ctx, s.(syscall.Signal)); over {
				return status, nil
			}
		case <-v.detached:
			v.leave()
			v.say("detached: %s runs on", v.container.ID())
			return 0, nil
		}
	}
}

// typed tells whether what is typed here is the container's.
func (v *viewer) typed() bool { return v.Input && !v.flags.noStdin }

// leave gives our terminal back as it was. Again it does nothing.
func (v *viewer) leave() {
	if v.ours != nil {
		_ = v.ours.Reset()
		v.ours = nil
		v.raw.Store(false)
		fmt.Fprintln(os.Stderr)
	}
}

// say is a word between the container's own, and not part of its output.
func (v *viewer) say(format string, args ...any) {
	end := "\n"
	if v.raw.Load() {
		end = "\r\n"
	}
	fmt.Fprintf(os.Stderr, "[migrate: "+format+"]"+end, args...)
}

// receive shows what comes, up to the end.
func (v *viewer) receive() {
	for {
		e, err := v.Receive()
		switch {
		case err != nil || e.Exit != nil || e.Moved != "":
			v.ends <- seen{e, err}
			return
		case e.Missed > 0:
			v.say("%d bytes of output are left out here, they came too fast; %s has them", e.Missed, v.container.State().LogFile)
		default:
			if _, err := os.Stdout.Write(e.Output); err != nil {
				v.ends <- seen{nil, err}
				return
			}
		}
	}
}

// send ends with our input: the container's goes on, for the next client.
func (v *viewer) send() {
	buffer := make([]byte, 4096)
	typing := v.keys
	if !isTerminal(os.Stdin) { // a file may have these bytes
		typing = &detachKeys{}
	}
	for {
		n, err := os.Stdin.Read(buffer)
		text, detach := typing.filter(buffer[:n])
		if _, err := v.Write(text); err != nil {
			return // receive knows why
		}
		if detach {
			close(v.detached)
			return
		}
		if err != nil {
			return
		}
	}
}

func (v *viewer) ended(e seen) (status int, err error) {
	switch {
	case errors.Is(e.err, io.EOF):
		return 0, fmt.Errorf("the monitor of %s has ended without a word: %w", v.container.ID(), e.err)
	case e.err != nil:
		return 0, e.err
	case e.Moved != "":
		v.leave()
		v.say("%s has moved to %s: attach to it there", v.container.ID(), e.Moved)
		return 0, nil
	case e.Exit.Status < 0:
		return 0, fmt.Errorf("%s has ended, its exit status is not known", v.container.ID())
	}
	return e.Exit.Status, nil
}

// signalled: with a terminal signals are for us, because its keys reach the container as keys. So are they for a client that
// only looks, and so is the end of our own terminal: no reason to end the container.
func (v *viewer) signalled(ctx context.Context, s syscall.Signal) (status int, over bool) {
	switch s {
	case syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGCONT:
		return 0, false
	case syscall.SIGWINCH:
		v.resize()
		return 0, false
	}
	if v.flags.sigProxy && !v.Terminal && v.typed() && s != syscall.SIGHUP {
		if err := v.container.Signal(context.WithoutCancel(ctx), s, false); err != nil {
			v.say("signal %d did not reach %s: %v", s, v.container.ID(), err)
		}
		return 0, false
	}
	switch s {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
		return 128 + int(s), true
	}
	return 0, false
}

// resize gives the container's terminal the size of ours. Who only looks leaves it to whoever works there.
func (v *viewer) resize() {
	if !v.Terminal || !v.typed() {
		return
	}
	for _, f := range []*os.File{os.Stdout, os.Stderr, os.Stdin} {
		if size, err := window.ReadSize(f); err == nil {
			_ = v.Resize(size) // receive knows why
			return
		}
	}
}
