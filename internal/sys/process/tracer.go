package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Tracer is the process that traces the process, or one of its threads; 0 when nobody does, or the process is gone.
func Tracer(pid int) (int, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/status", pid))
	if err != nil {
		return 0, err
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		tracer, err := number(text, "TracerPid:")
		if err != nil {
			return 0, fmt.Errorf("read tracer of process %d: %w", pid, err)
		}
		if tracer != 0 {
			return processOf(tracer), nil
		}
	}
	return 0, nil
}

// StoppedBySignal tells whether a signal has stopped the process (SIGSTOP, Ctrl-Z), whatever has happened to it since: the frozen
// are asked for the place that they sleep at.
func StoppedBySignal(pid int) bool {
	place, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return err == nil && string(place) == "do_signal_stop"
}

// Seized tells how far a tracer is with a process: whether it has any thread, and whether all stand still for it.
func Seized(pid int) (some, all bool) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/status", pid))
	all = err == nil
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		tracer, err := number(text, "TracerPid:")
		traced := err == nil && tracer != 0
		some = some || traced
		all = all && traced && bytes.Contains(text, []byte("\nState:\tt"))
	}
	return some, all
}

// processOf is the process of a thread, which is what the kernel names as a tracer. One that has ended stands for itself.
func processOf(thread int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return thread
	}
	if pid, err := number(text, "Tgid:"); err == nil && pid != 0 {
		return pid
	}
	return thread
}

// number is a value of /proc/PID/status.
func number(status []byte, name string) (int, error) {
	_, rest, _ := bytes.Cut(status, []byte("\n"+name))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.Atoi(string(bytes.TrimSpace(line)))
}

// ErrTraced: a process is being traced still. The text says by whom.
var ErrTraced = errors.New("it is traced")

// AwaitUntraced returns when nobody traces any of the processes, which are listed at each look, or with ErrTraced when ctx
// ends before that.
func AwaitUntraced(ctx context.Context, list func() ([]int, error)) error {
	for {
		pid, tracer, err := traced(list)
		if err != nil || tracer == 0 {
			return err
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("process %d: %w, by process %d", pid, ErrTraced, tracer)
		}
	}
}

func traced(list func() ([]int, error)) (pid, tracer int, err error) {
	pids, err := list()
	for _, pid := range pids {
		if tracer, err := Tracer(pid); err != nil || tracer != 0 {
			return pid, tracer, err
		}
	}
	return 0, 0, err
}
