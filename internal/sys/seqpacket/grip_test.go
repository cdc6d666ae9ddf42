package seqpacket

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ended tells whether a read of the child's end would return.
func ended(t *testing.T, theirs *os.File, patience time.Duration) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(theirs.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(patience.Milliseconds()))
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestChildWaitsForAProcessThatDiedWithTheGripClosed(t *testing.T) {
	for _, released := range []bool{false, true} {
		ours, theirs := pair(t)
		g, err := NewGrip()
		if err != nil {
			t.Fatal(err)
		}
		inherited, err := unix.Dup(int(g.File().Fd()))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second changes nothing
			if err := g.Hold(ours); err != nil {
				t.Fatal(err)
			}
		}
		if released {
			if err := g.Release(); err != nil {
				t.Fatal(err)
			}
		}
		ours.Close() // what a death closes
		g.near.Close()
		g.far.Close()
		if got := ended(t, theirs, 100*time.Millisecond); got != released {
			t.Errorf("released %v: the child's read returns: %v", released, got)
		}
		unix.Close(inherited) // the child is killed
		if !ended(t, theirs, 5*time.Second) {
			t.Error("the end lives on")
		}
	}
}

func TestClosedGripLeavesNothingOpen(t *testing.T) {
	ours, theirs := pair(t)
	g, err := NewGrip()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Hold(ours); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	if !ended(t, theirs, 5*time.Second) {
		t.Error("the end lives on")
	}
}

// A process that has no descriptor left lets go all the same, and waits for nothing where there is nothing.
func TestGripIsReleasedWithoutADescriptor(t *testing.T) {
	ours, theirs := pair(t)
	g, err := NewGrip()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	if err := g.Hold(ours); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	err = g.Release()
	if err := errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	g.closed = true // as after a Release that failed
	if err := g.Release(); err != nil || g.closed {
		t.Errorf("an open grip: %v", err)
	}
	_ = ours.Close()
	if !ended(t, theirs, 5*time.Second) {
		t.Error("the end lives on")
	}
}
