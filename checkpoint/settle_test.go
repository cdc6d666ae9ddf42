package checkpoint

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
)

// Any program may call itself as init is called; only one that is on no mount is the runtime.
func TestProgramIsNotTakenForTheRuntimeByItsName(t *testing.T) {
	sh := testutil.Command(t, "sh")
	cmd := exec.Command(sh, "-c", `printf `+runtime.InitName+` > /proc/$$/comm; echo; read line`)
	stdin, err := cmd.StdinPipe()
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
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := Settle(context.Background(), cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > settleTime/2 {
		t.Errorf("it took %v", took)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Settle(cancelled, os.Getpid()); err != nil {
		t.Errorf("nothing to wait for, and yet %v", err)
	}
}
