package e2e

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// A feeder that is killed while the container runs on half of its memory has a successor: nobody sees more than a pause.
func TestKilledFeederCostsNothing(t *testing.T) {
	setHugePages(t, 8)
	w := newWorld(t)
	w.run(w.A, "kinds", "workload", "kinds", "--megabytes", "8")
	c := w.checkWorkload()
	killed, at := 0, w.A
	for range 2 {
		to := w.other(at)
		p := w.push(at, "kinds", w.tls(to))
		if !p.until("restore") {
			t.Fatalf("push ended before its restore: %s", p.result.Error)
		}
		for deadline := time.Now().Add(5 * time.Second); killed < 3 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			pids := feederPids(to)
			signalAll(t, pids, syscall.SIGKILL)
			killed += len(pids)
		}
		p.moved()
		c.unharmed()
		at = to
	}
	if killed == 0 {
		t.Error("no feeder was killed")
	}
}

// feederPids are the feeders on a host. Their holders, which look the same from outside but have one thread, live on.
func feederPids(h *lab.Host) []int {
	var pids []int
	for _, text := range h.Pids() {
		cmdline, err := os.ReadFile("/proc/" + text + "/cmdline")
		if err != nil || !bytes.HasSuffix(cmdline, []byte("\x00feed\x00")) {
			continue
		}
		if threads, err := os.ReadDir("/proc/" + text + "/task"); err != nil || len(threads) < 2 {
			continue
		}
		pid, _ := strconv.Atoi(text)
		pids = append(pids, pid)
	}
	return pids
}
