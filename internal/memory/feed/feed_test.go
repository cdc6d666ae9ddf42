package feed_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
)

func TestRestoredProgramHasItsMemory(t *testing.T) {
	h := startHog(t, 64, 0)
	c := h.dump(t)
	s := c.supervise(t, true)
	c.restore(t)
	h.order(t, syscall.SIGUSR1, 1)
	fed(t, s)
	h.order(t, syscall.SIGUSR1, 1)
	t.Logf("%+v", s.Progress())
}

// TestPageThatCRIUHasRestoredIsRefused: it is in the layout, too.
func TestPageThatCRIUHasRestoredIsRefused(t *testing.T) {
	h := startHog(t, 16, 1)
	c := h.dump(t)
	list := ranges(t, filepath.Join(c.dir, fmt.Sprintf("pagemap-%d.img", h.pid)), present)
	at := list[len(list)/2].Start
	runs := &c.layout.Spaces[slices.IndexFunc(c.layout.Spaces, func(s feed.Space) bool { return s.Pid == h.pid })].Runs
	*runs = append(*runs, feed.Run{Range: memory.Range{Start: at, Pages: 1}, Slot: 1})
	slices.SortFunc(*runs, func(a, b feed.Run) int { return cmp.Compare(a.Start, b.Start) })
	s := c.supervise(t, true)
	c.restore(t)
	<-s.Done()
	want := fmt.Sprintf("process %d, at %#x: ", h.pid, at)
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestFeederMayDieAtAnyMoment: processes wait then, and get the right bytes from the next one, also for what they did to
// their address spaces while nobody was there.
func TestFeederMayDieAtAnyMoment(t *testing.T) {
	rounds := 4
	for round := range rounds {
		t.Run(strconv.Itoa(round), func(t *testing.T) { storm(t, uint64(round), false) })
		t.Run(strconv.Itoa(round)+", late", func(t *testing.T) { storm(t, uint64(round), true) })
	}
}

func storm(t *testing.T, seed uint64, late bool) {
	random := rand.New(rand.NewPCG(seed, 1))
	h := startHog(t, 128, 1)
	c := h.dump(t)
	supervise := func(t *testing.T) *feed.Supervisor { return c.supervise(t, true) }
	if late {
		supervise = c.superviseLate
	}
	s := supervise(t)
	killed := make(chan int, 1)
	go func() {
		if seed%2 == 1 { // let CRIU have its restore first
			for t.Context().Err() == nil && !s.Progress().Complete {
				time.Sleep(time.Millisecond)
			}
		}
		killed <- killFeeders(t.Context(), s, random, 12)
	}()
	t.Cleanup(func() { // before Close, which ends the talk with the supervisor
		select {
		case <-killed:
		case <-time.After(10 * time.Second):
		}
	})
	c.restore(t)
	for _, signal := range []syscall.Signal{
		syscall.SIGHUP, syscall.SIGIO, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGURG, syscall.SIGTSTP, syscall.SIGUSR1,
	} {
		h.order(t, signal, linesOf(signal))
	}
	n := <-killed
	killed <- n
	t.Logf("%d times killed, %+v", n, s.Progress())
	fed(t, s)
	h.order(t, syscall.SIGUSR1, 1)
}

// killFeeders kills feeders a while after they have come to work, until so many are dead, and returns how many it were.
func killFeeders(ctx context.Context, s *feed.Supervisor, random *rand.Rand, limit int) int {
	feeders := 0
	for n := range limit {
		for ctx.Err() == nil && s.Progress().Feeders <= feeders && !through(s.Progress()) {
			time.Sleep(time.Millisecond)
		}
		feeders = s.Progress().Feeders
		most := []time.Duration{3 * time.Millisecond, 30 * time.Millisecond, 150 * time.Millisecond}[n%3]
		select {
		case <-ctx.Done():
			return n
		case <-s.Done():
			return n
		case <-time.After(time.Duration(random.Int64N(int64(most)))):
			_ = syscall.Kill(s.Pid(), syscall.SIGKILL)
		}
	}
	return limit
}

func through(p feed.Progress) bool { return p.Complete && p.Total > 0 && p.Fed == p.Total }

// linesOf is how many lines a hog says to a signal, those of its children among them.
func linesOf(signal syscall.Signal) int {
	switch signal {
	case syscall.SIGUSR2:
		return 2
	case syscall.SIGTSTP:
		return 3
	default:
		return 1
	}
}
