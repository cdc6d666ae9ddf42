package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
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
	flags.BoolVar(&f.sigProxy, "sig-proxy", true, "without a terminal: pass signals on to the container's program")
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
	v := &viewer{Attachment: a, container: c, flags: f, keys: keys, events: make(chan seen), detached: make(chan struct{})}
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
	events    chan seen
	detached  chan struct{} // closed when the keys were typed
}

func (v *viewer) run(ctx context.Context) (status int, err error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, append(forwarded(), syscall.SIGINT, syscall.SIGTERM)...)
	typed := v.Input && !v.flags.noStdin
	if typed && v.Terminal {
		if v.ours, err = console.ConsoleFromFile(os.Stdin); err == nil {
			if err := v.ours.SetRaw(); err != nil {
				return 0, fmt.Errorf("use the terminal of the caller: %w", err)
			}
			defer v.leave()
		} else if !errors.Is(err, console.ErrNotAConsole) {
			return 0, fmt.Errorf("use the terminal of the caller: %w", err)
		}
	}
	v.resize()
	go v.receive()
	if typed {
		go v.send()
	}
	for {
		select {
		case e := <-v.events:
			status, over, err := v.show(e)
			if over || err != nil {
				return status, err
			}
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

// leave gives our terminal back as it was. Again it does nothing.
func (v *viewer) leave() {
	if v.ours != nil {
		_ = v.ours.Reset()
		v.ours = nil
		fmt.Fprintln(os.Stderr)
	}
}

// say is a word between the container's own, and not part of its output.
func (v *viewer) say(format string, args ...any) {
	end := "\n"
	if v.ours != nil {
		end = "\r\n"
	}
	fmt.Fprintf(os.Stderr, "[migrate: "+format+"]"+end, args...)
}

func (v *viewer) receive() {
	for {
		e, err := v.Receive()
		v.events <- seen{e, err}
		if err != nil || e.Exit != nil || e.Moved != "" {
			return
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

func (v *viewer) show(e seen) (status int, over bool, err error) {
	switch {
	case errors.Is(e.err, io.EOF):
		return 0, true, fmt.Errorf("the monitor of %s has ended without a word: %w", v.container.ID(), e.err)
	case e.err != nil:
		return 0, true, e.err
	case e.Moved != "":
		v.leave()
		v.say("%s has moved to %s: attach to it there", v.container.ID(), e.Moved)
		return 0, true, nil
	case e.Exit != nil && e.Exit.Status < 0:
		return 0, true, fmt.Errorf("%s has ended, its exit status is not known", v.container.ID())
	case e.Exit != nil:
		return e.Exit.Status, true, nil
	case e.Missed > 0:
		v.say("%d bytes of output are left out here, they came too fast; %s has them", e.Missed, v.container.State().LogFile)
	default:
		_, err = os.Stdout.Write(e.Output)
	}
	return 0, false, err
}

// signalled: with a terminal signals are for us, because its keys reach the container as keys.
func (v *viewer) signalled(ctx context.Context, s syscall.Signal) (status int, over bool) {
	switch s {
	case syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGCONT:
		return 0, false
	case syscall.SIGWINCH:
		v.resize()
		return 0, false
	}
	if v.flags.sigProxy && !v.Terminal {
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

// resize gives the container's terminal the size of ours.
func (v *viewer) resize() {
	if !v.Terminal {
		return
	}
	for _, f := range []*os.File{os.Stdout, os.Stderr, os.Stdin} {
		if size, err := window.ReadSize(f); err == nil {
			_ = v.Resize(size) // receive knows why
			return
		}
	}
}
