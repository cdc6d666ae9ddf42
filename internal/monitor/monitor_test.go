package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/monitor"
)

func TestLogHasAllThatTheContainerWroteInOrder(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			script := `i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; cat; printf 'end\000\r'`
			d := spawn(t, way, script, &monitor.Config{})
			d.waitEnd(t)
			var want strings.Builder
			for i := range 500 {
				fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
			}
			want.WriteString("end\x00\r")
			if got := d.log(t); got != want.String() {
				t.Errorf("the log has %d bytes, want %d: ...%q", len(got), want.Len(), got[max(0, len(got)-100):])
			}
		})
	}
}

// A container that has come to this host is not ended for its log.
func TestMonitorThatCannotOpenTheLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	script := `echo lost; until [ -e "` + dir + `" ]; do sleep 0.05; done; echo kept; exit 7`
	d := spawn(t, "keeper", script, &monitor.Config{LogFile: filepath.Join(dir, "log")})
	eventually(t, "the first line is read", func() bool {
		offset, err := monitor.Offset(t.Context(), d.StateDir)
		return err == nil && offset == 5
	})
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.waitEnd(t)
	want := "\n[migrate: 5 bytes of output were lost here: no such file or directory]\nkept\n"
	if got := d.log(t); got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
	if exit, err := monitor.ReadExit(d.StateDir); err != nil || exit.Status != 7 {
		t.Errorf("it ended with %+v, %v", exit, err)
	}
}

func TestExitStatusIsKept(t *testing.T) {
	tests := map[string]struct {
		script         string
		status, signal int
	}{
		"success": {"true", 0, 0},
		"failure": {"exit 7", 7, 0},
		"signal":  {"kill -KILL $$", 137, 9},
	}
	for _, way := range ways {
		for name, test := range tests {
			t.Run(way+"/"+name, func(t *testing.T) {
				d := spawn(t, way, test.script, &monitor.Config{})
				d.waitEnd(t)
				exit, err := monitor.ReadExit(d.StateDir)
				if err != nil {
					t.Fatal(err)
				}
				if exit.Status != test.status || exit.Signal != test.signal || time.Since(exit.At) > time.Minute {
					t.Errorf("kept %+v, want status %d and signal %d", exit, test.status, test.signal)
				}
			})
		}
	}
}

func TestContainerHasNoDescriptorOfItsMonitor(t *testing.T) {
	const script = "cd /proc/$$/fd; echo *"
	want, err := exec.CommandContext(t.Context(), "sh", "-c", script).Output() // what a test inherits is not the monitor's fault
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			d := spawn(t, way, script, &monitor.Config{})
			d.waitEnd(t)
			if got := d.log(t); got != string(want) {
				t.Errorf("it has %q, want %q", got, want)
			}
		})
	}
}

func TestExitStatusOfARunningContainer(t *testing.T) {
	d := spawn(t, "monitor", "sleep 60", &monitor.Config{})
	if exit, err := monitor.ReadExit(d.StateDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %+v, %v", exit, err)
	}
}

func TestDrainLeavesNothingInThePipeOfAStoppedContainer(t *testing.T) {
	for _, way := range ways {
		for _, terminal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/terminal=%v", way, terminal), func(t *testing.T) {
				const before = 1000
				script := "while :; do echo 0123456789012345678901234567890; done"
				d := spawn(t, way, script, &monitor.Config{Terminal: terminal, Offset: before})
				d.waitLog(t, "\n")
				for range 5 {
					if err := syscall.Kill(-d.init, syscall.SIGSTOP); err != nil {
						t.Fatal(err)
					}
					eventually(t, "the container stops", func() bool { return d.state(t) == "T" })
					offset, err := monitor.Drain(t.Context(), d.StateDir)
					if err != nil {
						t.Fatal(err)
					}
					size := int64(len(d.log(t)))
					if offset != before+size {
						t.Errorf("the offset is %d, the log has %d", offset, size)
					}
					time.Sleep(20 * time.Millisecond)
					later, err := monitor.Offset(t.Context(), d.StateDir)
					if err != nil || later != offset {
						t.Errorf("after the drain came %d bytes more, %v", later-offset, err)
					}
					if err := syscall.Kill(-d.init, syscall.SIGCONT); err != nil {
						t.Fatal(err)
					}
					eventually(t, "the container goes on", func() bool { return len(d.log(t)) > int(size) })
				}
			})
		}
	}
}

func TestTerminalThatNobodyHasOpenForAWhile(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			script := `tty=$(tty); echo first; exec <&- >&- 2>&-; sleep 0.3; echo second >$tty; test -t 0 <$tty && echo third >$tty`
			d := spawn(t, way, script, &monitor.Config{Terminal: true})
			d.waitEnd(t)
			if got, want := d.log(t), "first\r\nsecond\r\nthird\r\n"; got != want {
				t.Errorf("the log is %q, want %q", got, want)
			}
		})
	}
}

func TestMonitorStaysForOrphansThatStillWrite(t *testing.T) {
	goOn := filepath.Join(t.TempDir(), "go-on")
	d := spawn(t, "monitor", "(until [ -e "+goOn+" ]; do sleep 0.01; done; echo late) & exit 3", &monitor.Config{})
	eventually(t, "the exit status is kept", func() bool { _, err := monitor.ReadExit(d.StateDir); return err == nil })
	if got := d.log(t); got != "" {
		t.Errorf("the log has %q before the orphan wrote", got)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.waitEnd(t)
	if got := d.log(t); got != "late\n" {
		t.Errorf("the log is %q", got)
	}
}

func TestMonitorSurvivesWhatEndsItsCommand(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			d := spawn(t, way, "echo $PPID; sleep 60", &monitor.Config{})
			pid, err := strconv.Atoi(strings.TrimSpace(d.waitLog(t, "\n")))
			if err != nil {
				t.Fatal(err)
			}
			for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
				if err := syscall.Kill(pid, sig); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(50 * time.Millisecond)
			if _, err := monitor.Offset(t.Context(), d.StateDir); err != nil {
				t.Error(err)
			}
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Fields(string(stat[strings.LastIndex(string(stat), ")"):]))[4]; got != strconv.Itoa(pid) {
				t.Errorf("the monitor %d is in session %s", pid, got)
			}
		})
	}
}

func TestHangupReopensTheRotatedLog(t *testing.T) {
	d := spawn(t, "monitor", "echo $PPID; while :; do echo more; sleep 0.01; done", &monitor.Config{})
	pid, err := strconv.Atoi(strings.Fields(d.waitLog(t, "more"))[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.LogFile, d.LogFile+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is a new log", func() bool { _, err := os.Stat(d.LogFile); return err == nil })
	d.waitLog(t, "more")
	offset, err := monitor.Offset(t.Context(), d.StateDir)
	if old, statErr := os.Stat(d.LogFile + ".1"); err != nil || statErr != nil || offset <= old.Size() {
		t.Errorf("the offset began anew: %d, %v, %v", offset, err, statErr)
	}
}

func TestMonitorIsSmall(t *testing.T) {
	d := spawn(t, "monitor", "echo $PPID; yes | head -c 10000000; echo over; sleep 60", &monitor.Config{})
	text := d.waitLog(t, "over")
	status, err := os.ReadFile("/proc/" + strings.Fields(text)[0] + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("RssAnon is %d kB", kilobytes)
	if kilobytes > 24<<10 { // with the race detector; 2 MB without
		t.Errorf("RssAnon is %d kB", kilobytes)
	}
}

func TestSpawnSaysWhyAndLeavesNothing(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		script string
		log    string
		want   string
	}{
		"log in a missing directory": {"true", "missing/log", "no such file or directory"},
		"log is a directory":         {"true", ".", "is a directory"},
		"no log":                     {"true", "", "needs a log file"},
		"container does not start":   {"fail to start", "log", "no such program"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := &monitor.Config{ID: "test", StateDir: filepath.Join(dir, "state"), LogFile: test.log}
			if test.log != "" {
				c.LogFile = filepath.Join(dir, test.log)
			}
			_, err := monitor.Spawn(t.Context(), exe, []string{"monitor", test.script}, c)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error %v does not say %q", err, test.want)
			}
			if _, err := os.Stat(c.StateDir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the state directory is still there: %v", err)
			}
		})
	}

	t.Run("interrupted", func(t *testing.T) {
		dir := t.TempDir()
		c := &monitor.Config{ID: "test", StateDir: filepath.Join(dir, "state"), LogFile: filepath.Join(dir, "log")}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := monitor.Spawn(ctx, exe, []string{"monitor", "never"}, c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no monitor", func(t *testing.T) {
		dir := t.TempDir()
		c := &monitor.Config{ID: "test", StateDir: filepath.Join(dir, "state"), LogFile: filepath.Join(dir, "log")}
		_, err := monitor.Spawn(t.Context(), "/bin/false", nil, c)
		if err == nil || !strings.Contains(err.Error(), "without an answer") {
			t.Errorf("got %v", err)
		}
	})
}

func TestDrainWithoutAMonitor(t *testing.T) {
	dir := t.TempDir()
	for _, stateDir := range []string{dir, filepath.Join(dir, "missing")} {
		if _, err := monitor.Drain(t.Context(), stateDir); !errors.Is(err, monitor.ErrNoMonitor) {
			t.Errorf("%s: %v", stateDir, err)
		}
	}
}
