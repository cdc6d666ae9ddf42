package main

import (
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// foreground stands in for a process in a container: what is signalled to this program goes to it, and its end is ours.
type foreground struct {
	signals chan os.Signal
	ready   chan struct{} // closed when all signals are taken
	log     *slog.Logger
}

// newForeground takes all signals from now on, until the program ends. It is called before the process is started, so
// that none is lost.
func newForeground(log *slog.Logger) *foreground {
	f := &foreground{signals: make(chan os.Signal, 2048), ready: make(chan struct{}), log: log}
	signal.Notify(f.signals, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGTERM)
	// Each signal costs Go two changes of threads, a millisecond in all: the others while the process is being made.
	go func() {
		defer close(f.ready)
		signal.Notify(f.signals, forwarded()...)
	}()
	return f
}

// forwarded are all signals that can be taken, but for SIGTTIN and SIGTTOU. In the background of a shell these mean us,
// who read its terminal: taken, the kernel would send them for ever.
func forwarded() []os.Signal {
	const last = 64
	var list []os.Signal
	for n := syscall.Signal(1); n <= last; n++ {
		switch n {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGURG:
		default:
			list = append(list, n)
		}
	}
	return list
}

// wait returns the exit status of the child pid, 128+n for a death by signal n. As a subreaper this program may get other
// children: it reaps them all.
func (f *foreground) wait(pid int, deliver func(syscall.Signal) error, resize func()) (int, error) {
	<-f.ready
	for {
		// First of all: the child may have ended before its signal was waited for.
		if status, ended, err := reap(pid); ended || err != nil {
			return status, err
		}
		switch s := (<-f.signals).(syscall.Signal); s {
		case syscall.SIGCHLD:
		case syscall.SIGWINCH:
			resize()
		case syscall.SIGPIPE: // our own output is gone; the copying has noticed
		default:
			if err := deliver(s); err != nil {
				f.log.Debug("forward signal", "signal", s.String(), "error", err)
			}
		}
	}
}

// reap collects all children that have ended.
func reap(pid int) (status int, ended bool, err error) {
	for {
		var ws syscall.WaitStatus
		child, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD) && !ended:
			return 0, false, errors.New("wait for the container's process: it is no child of this program")
		case err != nil && !errors.Is(err, syscall.ECHILD):
			return 0, false, os.NewSyscallError("wait4", err)
		case child <= 0:
			return status, ended, nil
		}
		if child == pid {
			ended, status = true, ws.ExitStatus()
			if ws.Signaled() {
				status = 128 + int(ws.Signal())
			}
		}
	}
}
