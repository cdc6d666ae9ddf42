package process

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
)

func TestStatusOfThisProcess(t *testing.T) {
	s, err := ReadStatus(os.Getpid())
	if err != nil || len(s.Pids) == 0 || s.Pids[0] != os.Getpid() || s.Anonymous == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := ReadStatus(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}

func TestFileLimitIsRaised(t *testing.T) {
	cmd := exec.Command("sh", "-c", "ulimit -Sn 200; ulimit -Hn 300; echo; read line; ulimit -Sn; ulimit -Hn")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	limit, err := RaiseFiles(cmd.Process.Pid)
	if err != nil || limit != 300 {
		t.Errorf("limit %d, %v", limit, err)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 8)
	if n, err := out.Read(text); err != nil || !slices.Equal(text[:n], []byte("300\n300\n")) && !slices.Equal(text[:n], []byte("300\n")) {
		t.Errorf("it may open %q, %v", text[:n], err)
	}
	if _, err := RaiseFiles(1 << 30); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("no process: %v", err)
	}
}
