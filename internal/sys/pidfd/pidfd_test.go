package pidfd_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
)

func TestSignalAndWait(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	process := open(t, child.Process.Pid)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := pidfd.Wait(ctx, process); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a live process: %v", err)
	}
	if err := pidfd.Signal(process, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := pidfd.Wait(t.Context(), process); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Error("the killed child ended well")
	}
	if err := pidfd.Signal(process, syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a reaped process: %v", err)
	}
}

func TestGetFDReadsAnothersPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	child := exec.Command("sleep", "60")
	child.Stdout = w
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	w.Close()
	got, err := pidfd.GetFD(open(t, child.Process.Pid), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.WriteString("through the child's own end"); err != nil {
		t.Fatal(err)
	}
	got.Close()
	text := make([]byte, len("through the child's own end"))
	if _, err := io.ReadFull(r, text); err != nil {
		t.Fatal(err)
	}
}

func TestOpenOfNoProcess(t *testing.T) {
	if _, err := pidfd.Open(1 << 22); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v", err)
	}
}

func open(t *testing.T, pid int) *os.File {
	t.Helper()
	process, err := pidfd.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { process.Close() })
	return process
}
