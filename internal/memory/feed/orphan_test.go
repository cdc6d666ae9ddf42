package feed

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/sys/pidfd"
)

// A feeder that nobody watches may come to its end between any two looks at it. Whoever took that for a loss would have a container
// started elsewhere that is whole here.
func TestFeederThatHasJustEndedIsNoLoss(t *testing.T) {
	dir := t.TempDir()
	lock, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	guard, err := takeGuard(dir)
	if err != nil {
		t.Fatal(err)
	}
	guard.Close()
	if _, err := findOrphan(lock); !errors.Is(err, ErrLost) {
		t.Errorf("nobody holds it: %v", err)
	}
	if err := Check(dir); !errors.Is(err, ErrLost) {
		t.Errorf("nobody holds it: %v", err)
	}
	// What a feeder does at its end, after it was told that memory is missing.
	if _, err := lock.WriteAt([]byte(fedMark), 0); err != nil {
		t.Fatal(err)
	}
	if missing, err := isMissing(open(t, lock.Name())); err != nil || !missing {
		t.Fatalf("it is missing: %v, %v", missing, err)
	}
	if _, err := findOrphan(lock); !errors.Is(err, ErrFed) {
		t.Errorf("it is fed: %v", err)
	}
	if err := Check(dir); err != nil {
		t.Errorf("it is fed: %v", err)
	}
	if _, err := Adopt(t.Context(), dir, nil); !errors.Is(err, ErrFed) {
		t.Errorf("it is fed: %v", err)
	}
	lock.Close()
	again, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := findOrphan(again); !errors.Is(err, ErrLost) {
		t.Errorf("the mark of the feeding before counts: %v", err)
	}
}

// The holder is found, and ends before anything is taken from it.
func TestHolderThatHasEndedIsNotChosen(t *testing.T) {
	journal, err := hole.Memory("journal")
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	for journal.Fd() == journalFD { // which would make a feeder of this process, too
		if journal, err = hole.Memory("journal"); err != nil {
			t.Fatal(err)
		}
		defer journal.Close()
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "100")
	for range journalFD - 2 {
		cmd.ExtraFiles = append(cmd.ExtraFiles, journal)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	holder, err := pidfd.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	o := &orphan{holder: holder, pid: pid, journal: journal}
	defer func() { o.close() }()
	if err := o.findUsers([]int{os.Getpid(), pid, 1 << 30}); err != nil || len(o.feeders) != 1 || o.feeders[0].pid != pid {
		t.Fatalf("found %v, %v", o.feeders, err)
	}
	o.holders, o.feeders = o.feeders, nil // it does not call itself one
	if err := o.choose(pid); err != nil {
		t.Errorf("it lives: %v", err)
	}
	if err := o.choose(pid + 1); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("nobody: %v", err)
	}
	if err := o.holders[0].end(t.Context()); err != nil {
		t.Error(err)
	}
	if err := o.settle(t.Context(), &head{holders: [2]uint32{uint32(pid), uint32(pid)}}); !errors.Is(err, ErrLost) {
		t.Errorf("it is not reaped, but has ended: %v", err)
	}
	_ = cmd.Wait()
	if err := o.holders[0].end(t.Context()); err != nil {
		t.Errorf("it has ended: %v", err)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
