package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// beats watches the files that both hosts' copies of the container write the time into. What B's file says comes from A as
// long as it is not later than what A's says: files travel. From the moment that it is later, B's copy has run.
type beats struct {
	files [2]string // of A and of B

	mu    sync.Mutex
	ran   bool   // B's copy has
	a     uint64 // A's last beat when that was seen
	twice bool   // A's copy has run since
	over  chan struct{}
	ended sync.WaitGroup
}

func watchBeats(a, b *lab.Host) *beats {
	w := &beats{over: make(chan struct{})}
	for i, h := range []*lab.Host{a, b} {
		w.files[i] = h.Path(filepath.Join(bundle, "rootfs", "beat"))
	}
	w.ended.Go(func() {
		for {
			select {
			case <-w.over:
				return
			case <-time.After(2 * time.Millisecond):
				w.look()
			}
		}
	})
	return w
}

// look reads B's first: what has come from A is then surely not later than what A's says.
func (w *beats) look() (a, b uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, a = read(w.files[1]), read(w.files[0])
	switch {
	case w.ran && a > w.a:
		w.twice = true
	case !w.ran && b > a && a > 0:
		w.ran, w.a = true, a
	}
	return a, b
}

// forgive: B's copy is dead for good, and A's may run.
func (w *beats) forgive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.a = ^uint64(0)
}

// alive tells whose copies run now.
func (w *beats) alive() (a, b bool) {
	wasA, wasB := w.look()
	time.Sleep(40 * time.Millisecond)
	isA, isB := w.look()
	return isA > wasA, isB > wasB
}

// two tells whether both copies have run.
func (w *beats) two() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.twice
}

func (w *beats) close() {
	close(w.over)
	w.ended.Wait()
}

func read(path string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil || len(text) != 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(text)
}
