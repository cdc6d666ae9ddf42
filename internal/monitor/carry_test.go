package monitor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/monitor"
)

// More than a pipe holds is written while nobody else reads; what comes after Stop is the monitor's.
func TestCarrierTakesOutputUntilItIsStopped(t *testing.T) {
	stdio, err := monitor.NewStdio(false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer stdio.Close()
	log := filepath.Join(t.TempDir(), "log")
	// The container's end, which Output closes here.
	container, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", stdio.Stdout.Fd()), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer container.Close()
	output, err := stdio.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := monitor.Carry(log, 1000, stdio)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("carried\n", 100_000)
	if _, err := container.WriteString(text); err != nil {
		t.Fatal(err)
	}
	offset, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if offset != 1000+int64(len(taken)) || !strings.HasPrefix(text, string(taken)) {
		t.Errorf("offset %d after %d bytes", offset, len(taken))
	}
	rest := make([]byte, len(text)-len(taken))
	if len(rest) > 0 {
		if _, err := output.Read(rest); err != nil {
			t.Fatal(err)
		}
	}
	if string(taken)+string(rest) != text {
		t.Error("something was lost between the carrier and who reads next")
	}
}
