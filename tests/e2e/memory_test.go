package e2e

import (
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// moves is set by `make soak-memory`: so many in a row, through all the ways in turn.
var moves = flag.Int("moves", 0, "moves of the memory test, 0 for each way there and back")

// memoryModes are the ways in which memory moves; a mode is one line.
var memoryModes = []struct {
	name  string
	flags []string
}{
	{"stop-copy", []string{"--mode", "stop-copy"}},
	{"pre-copy", []string{"--mode", "pre-copy"}},
	{"post-copy", []string{"--mode", "post-copy"}},
	{"hybrid", []string{"--mode", "hybrid"}},
	{"auto, many lanes", []string{"--mode", "auto", "--lanes", "6"}},
}

// Every kind of memory, written all the time, in processes and threads that come and go: each page has a version, and is what
// it was, there and back again, whichever way it went. CRIU dumps and restores all of these kinds by itself.
func TestEveryKindOfMemoryArrives(t *testing.T) {
	setHugePages(t, 8)
	w := newWorldFor(t, 3*time.Minute+time.Duration(*moves)*time.Minute)
	w.run(w.A, "kinds", "workload", "kinds", "--megabytes", "1")
	c := w.checkWorkload()
	at := w.A
	var early census
	for n := range max(*moves, 2*len(memoryModes)) {
		mode := memoryModes[n/2%len(memoryModes)]
		to := w.other(at)
		p := w.push(at, append(append([]string{}, mode.flags...), "kinds", w.tls(to))...)
		p.moved()
		t.Logf("move %d, %s: away for %.0f ms, %d MB", n+1, mode.name, p.result.DowntimeMS, p.result.BytesSent>>20)
		if now := w.where("kinds"); now != to {
			t.Fatalf("%s: runs on %s after move %d to %s", mode.name, now.Name, n+1, to.Name)
		}
		c.unharmed()
		at = to
		if n == 1 || n == 3 { // there and back: what a first move leaves for good is there
			early = w.census()
		}
	}
	if at == w.A && *moves > 4 {
		w.notGrown(early)
	}
}

// setHugePages sets pages of hugetlb aside until the test ends; where the machine gives none the workload goes without.
func setHugePages(t *testing.T, n int) {
	t.Helper()
	const path = "/proc/sys/vm/nr_hugepages"
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	if had, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || had >= n {
		return
	}
	if err := os.WriteFile(path, []byte(itoa(n)), 0); err != nil {
		t.Logf("no huge pages: %v", err)
		return
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, text, 0); err != nil {
			t.Error(err)
		}
	})
}
