package monitor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
	c, err := monitor.Carry(&monitor.Config{LogFile: log, Offset: 1000}, stdio)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("carried\n", 100_000)
	if _, err := container.WriteString(text); err != nil {
		t.Fatal(err)
	}
	offset, lost, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if lost != 0 || offset != 1000+int64(len(taken)) || !strings.HasPrefix(text, string(taken)) {
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

// What is at the log's path now can't be opened: the file that was there before has the output, as long as anybody can find it.
func TestCarrierWithoutALogLosesNoContainer(t *testing.T) {
	for name, away := range map[string]func(log string) error{
		"renamed": func(log string) error { return os.Rename(log, log+".1") },
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			stdio, err := monitor.NewStdio(false, false)
			if err != nil {
				t.Fatal(err)
			}
			defer stdio.Close()
			log := filepath.Join(t.TempDir(), "log")
			before, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer before.Close()
			if err := errors.Join(away(log), syscall.Mkfifo(log, 0o600)); err != nil {
				t.Fatal(err)
			}
			container, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", stdio.Stdout.Fd()), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stdio.Output(t.Context()); err != nil {
				t.Fatal(err)
			}
			c, err := monitor.Carry(&monitor.Config{LogFile: log, Log: before, Lost: 5}, stdio)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Repeat("carried\n", 10_000)
			if _, err := container.WriteString(text); err != nil {
				t.Fatal(err)
			}
			container.Close()
			<-c.Done()
			offset, lost, err := c.Stop()
			if name == "removed" {
				if want := int64(len(text)); err == nil || offset != want || lost != want+5 {
					t.Errorf("at %d, %d bytes are lost, %v", offset, lost, err)
				}
				return
			}
			taken, readErr := os.ReadFile(log + ".1")
			if err != nil || readErr != nil || lost != 0 || !strings.HasSuffix(string(taken), "]\n"+text) {
				t.Errorf("at %d, %d bytes are lost, %v, %v; the log has %d bytes", offset, lost, err, readErr, len(taken))
			}
		})
	}
}
