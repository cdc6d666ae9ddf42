package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// memoryWatch samples the private resident memory of our own processes, of which the kernel keeps no peak, and the memory of
// the peer's cgroup: processes, the restored container and files in memory.
type memoryWatch struct {
	quit  chan struct{}
	ended chan struct{}
	once  sync.Once
	peaks memoryPeaks
}

type memoryPeaks struct {
	rssMB     map[string]float64 // by the process's verb
	peerBytes int64              // more than when the watch began
}

func watchMemory(l *lab.Lab) *memoryWatch {
	w := &memoryWatch{quit: make(chan struct{}), ended: make(chan struct{}), peaks: memoryPeaks{rssMB: map[string]float64{}}}
	began := l.B.MemoryBytes()
	go func() {
		defer close(w.ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.quit:
				return
			case <-tick.C:
				sampleRSS(l, w.peaks.rssMB)
				w.peaks.peerBytes = max(w.peaks.peerBytes, l.B.MemoryBytes()-began)
			}
		}
	}()
	return w
}

// stop ends it and returns what it saw. It may be called again.
func (w *memoryWatch) stop() *memoryPeaks {
	w.once.Do(func() { close(w.quit) })
	<-w.ended
	return &w.peaks
}

func sampleRSS(l *lab.Lab, peaks map[string]float64) {
	for _, host := range []*lab.Host{l.A, l.B} {
		for _, pid := range host.Pids() {
			dir := filepath.Join("/proc", pid)
			cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
			if err != nil {
				continue // it has just ended
			}
			verb, ours := verbOf(cmdline)
			if !ours {
				continue
			}
			status, err := os.ReadFile(filepath.Join(dir, "status"))
			if err != nil {
				continue
			}
			peaks[verb] = max(peaks[verb], float64(rssAnonKB(status))/1024)
		}
	}
}

// verbOf is what a migrate process is for.
func verbOf(cmdline []byte) (verb string, ours bool) {
	args := strings.Split(string(bytes.TrimRight(cmdline, "\x00")), "\x00")
	if filepath.Base(args[0]) != "migrate" && args[0] != "/proc/self/exe" {
		return "", false
	}
	for _, arg := range args[1:] {
		if slices.Contains([]string{"push", "serve", "receive", "keeper", "monitor"}, arg) {
			return arg, true
		}
	}
	return "", false
}

func rssAnonKB(status []byte) int {
	_, rest, found := bytes.Cut(status, []byte("RssAnon:"))
	if !found {
		return 0
	}
	var kb int
	_, _ = fmt.Sscan(string(rest), &kb)
	return kb
}
