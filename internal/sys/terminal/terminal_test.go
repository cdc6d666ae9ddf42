package terminal

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/containerd/console"
)

// A program's terminal that blocked goes on blocking; one that did not is left alone.
func TestRestoreMakesATerminalBlockAgain(t *testing.T) {
	blocking, other := openTerminal(t), openTerminal(t)
	if err := syscall.SetNonblock(int(other.Fd()), true); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{blocking, other}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	// os/exec makes what it passes on block.
	if err := syscall.SetNonblock(int(other.Fd()), true); err != nil {
		t.Fatal(err)
	}

	terminals, err := ListBlocking([]int{cmd.Process.Pid, 1 << 22})
	if err != nil {
		t.Fatal(err)
	}
	if len(terminals) != 1 || terminals[0].FD != 3 {
		t.Fatalf("found %v", terminals)
	}
	if err := syscall.SetNonblock(int(blocking.Fd()), true); err != nil {
		t.Fatal(err)
	}
	if err := Restore(terminals); err != nil {
		t.Fatal(err)
	}
	if flags := flagsOf(t, blocking); flags&syscall.O_NONBLOCK != 0 {
		t.Error("the terminal does not block")
	}
	if flags := flagsOf(t, other); flags&syscall.O_NONBLOCK == 0 {
		t.Error("a terminal that did not block does now")
	}
}

func TestRestoreForgetsAProcessThatHasEnded(t *testing.T) {
	if err := Restore([]Blocking{{Pid: 1 << 22, FD: 0}}); err != nil {
		t.Error(err)
	}
}

// openTerminal is the program's end of a pty.
func openTerminal(t *testing.T) *os.File {
	t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	slave := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() {
		slave.Close()
		master.Close()
	})
	return slave
}

func flagsOf(t *testing.T, f *os.File) uintptr {
	t.Helper()
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFL, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return flags
}
