package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// memoryWatch samples the private resident memory of our own processes: the kernel keeps no peak of RssAnon.
type memoryWatch struct {
	quit  chan struct{}
	peaks chan map[string]int
}

func watchMemory(l *lab.Lab) *memoryWatch {
	w := &memoryWatch{quit: make(chan struct{}), peaks: make(chan map[string]int)}
	go func() {
		peaks := map[string]int{}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.quit:
				w.peaks <- peaks
				return
			case <-tick.C:
				sample(l, peaks)
			}
		}
	}()
	return w
}

// stop returns the peaks in KB, by the process's verb.
func (w *memoryWatch) stop() map[string]int {
	close(w.quit)
	return <-w.peaks
}

func sample(l *lab.Lab, peaks map[string]int) {
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
			peaks[verb] = max(peaks[verb], rssAnon(status))
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

func rssAnon(status []byte) int {
	_, rest, found := bytes.Cut(status, []byte("RssAnon:"))
	if !found {
		return 0
	}
	var kb int
	_, _ = fmt.Sscan(string(rest), &kb)
	return kb
}
