package track_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/track"
	"github.com/livemigrate/migrate/internal/sys/ptrace"
	"github.com/livemigrate/migrate/internal/testutil"
)

// kinds that this kernel has.
func kinds(t *testing.T) []track.Kind {
	t.Helper()
	var have []track.Kind
	for _, kind := range []track.Kind{track.WriteProtect, track.SoftDirty, track.None} {
		set, err := track.Open(t.Context(), func() ([]int, error) { return nil, nil }, &track.Options{Kind: kind, Freeze: noFreeze})
		if errors.Is(err, track.ErrKind) {
			t.Logf("not here: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, kind)
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	}
	return have
}

func noFreeze(context.Context) (func() error, error) { return func() error { return nil }, nil }

func open(t *testing.T, c *cgroup, kind track.Kind) *track.Set {
	t.Helper()
	set, err := track.Open(t.Context(), c.pids, &track.Options{
		Kind: kind, Freeze: c.freeze, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	return set
}

// TestReplicaIsExact: who reads what he is told to has, at the end, every byte of every process, whatever they did meanwhile.
func TestReplicaIsExact(t *testing.T) {
	const churn = "writes,huge,idle,moves,drops,maps,protects"
	for _, kind := range kinds(t) {
		for _, hog := range []string{churn, "writes,programs,forks", "undumpable,seccomp,moves,drops", "writes,exec"} {
			t.Run(string(kind)+"/"+hog, func(t *testing.T) {
				c := newCgroup(t)
				cmd := c.hog(t, hog)
				set := open(t, c, kind)
				r := newReplica()
				rounds := 5
				if kind == track.None {
					rounds = 2 // each is the same
				}
				for i := range rounds {
					changes, err := set.Round(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("round %d: %d spaces, %d dirty pages", i, len(changes), r.apply(t, changes))
					time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
				}
				for i := range 2 { // a second time as after a rollback
					thaw, err := c.freeze(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					changes, err := set.Final(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					took := time.Since(start)
					t.Logf("final %d: %d spaces, %d dirty pages, %v", i, len(changes), r.apply(t, changes), took)
					pids, err := c.pids()
					if err != nil {
						t.Fatal(err)
					}
					r.verify(t, pids)
					if err := thaw(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(30 * time.Millisecond)
					changes, err = set.Round(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					r.apply(t, changes)
				}
				if err := set.Close(); err != nil {
					t.Error(err)
				}
				time.Sleep(50 * time.Millisecond)
				running(t, cmd)
				pids, err := c.pids()
				if err != nil {
					t.Fatal(err)
				}
				for _, pid := range pids {
					if n := userfaultfds(pid); n > 0 {
						t.Errorf("process %d has %d userfaultfds", pid, n)
					}
				}
			})
		}
	}
}

// TestIdleMemoryStaysClean: what is not written is read once.
func TestIdleMemoryStaysClean(t *testing.T) {
	for _, kind := range kinds(t) {
		if kind == track.None {
			continue
		}
		t.Run(string(kind), func(t *testing.T) {
			c := newCgroup(t)
			c.hog(t, "idle")
			set := open(t, c, kind)
			first := pages(t, set.Round, t.Context())
			if again := pages(t, set.Round, t.Context()); again > first/8 || first < 2048 {
				t.Errorf("%d pages are dirty, then %d", first, again)
			}
			set.Forget()
			if again := pages(t, set.Round, t.Context()); again < 2048 {
				t.Errorf("%d pages are dirty after Forget", again)
			}
		})
	}
}

func pages(t *testing.T, look func(context.Context) ([]track.Change, error), ctx context.Context) (n uint64) { //nolint:revive // a test's helper
	t.Helper()
	changes, err := look(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		n += count(c.Dirty)
	}
	return n
}

func count(ranges []memory.Range) (n uint64) {
	for _, r := range ranges {
		n += r.Pages
	}
	return n
}

// TestUntrackedSaysWhy: who cannot be tracked is told of as a whole, with the reason, and is tracked when that has passed.
func TestUntrackedSaysWhy(t *testing.T) {
	needKind(t, track.WriteProtect)
	t.Run("stopped", func(t *testing.T) {
		c := newCgroup(t)
		pid := c.hog(t, "idle").Process.Pid
		set := open(t, c, track.WriteProtect)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		waitState(t, pid, 'T')
		for range 2 {
			change := one(t, set)
			stopped := errors.Is(change.Reason, track.ErrBusy) || errors.Is(change.Reason, ptrace.ErrStopped)
			if !stopped || count(change.Untracked) < 2048 {
				t.Errorf("%v, %d pages", change.Reason, count(change.Untracked))
			}
		}
		if waitState(t, pid, 'T'); syscall.Kill(pid, syscall.SIGCONT) != nil {
			t.Fatal("cannot continue")
		}
		waitState(t, pid, 'S')
		if change := one(t, set); change.Reason != nil || len(change.Untracked) > 0 || count(change.Dirty) < 2048 {
			t.Errorf("%v, %d pages untracked, %d dirty", change.Reason, count(change.Untracked), count(change.Dirty))
		}
	})
	t.Run("traced", func(t *testing.T) {
		c := newCgroup(t)
		pid := c.hog(t, "idle").Process.Pid
		traced, done := make(chan error), make(chan struct{})
		go trace(pid, traced, done)
		if err := <-traced; err != nil {
			t.Fatal(err)
		}
		defer close(done)
		if change := one(t, open(t, c, track.WriteProtect)); !errors.Is(change.Reason, track.ErrTraced) || count(change.Untracked) < 2048 {
			t.Errorf("%v, %d pages", change.Reason, count(change.Untracked))
		}
	})
	t.Run("own userfaultfd", func(t *testing.T) {
		c := newCgroup(t)
		cmd := c.hog(t, "userfaultfd,idle")
		set := open(t, c, track.WriteProtect)
		for range 2 {
			change := one(t, set)
			if !errors.Is(change.Reason, track.ErrOwnUserfaultfd) || count(change.Untracked) != 32 {
				t.Errorf("%v, %d pages", change.Reason, count(change.Untracked))
			}
		}
		if change := one(t, set); count(change.Dirty) > 1024 {
			t.Errorf("%d pages are dirty", count(change.Dirty))
		}
		running(t, cmd)
	})
}

// TestPinnedMemoryIsReadAgain: a disk that writes into memory is not seen by page tables.
func TestPinnedMemoryIsReadAgain(t *testing.T) {
	needKind(t, track.WriteProtect)
	c := newCgroup(t)
	name := t.TempDir() + "/file"
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_DIRECT, 0o600)
	testutil.Need(t, err == nil, "a file system with O_DIRECT")
	defer file.Close()
	cmd := exec.Command("/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && echo ready && exec sleep 60`, c.dir)
	cmd.ExtraFiles = []*os.File{file}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	set := open(t, c, track.WriteProtect)
	one(t, set)
	one(t, set)
	changes, err := set.Final(t.Context())
	if err != nil || len(changes) != 1 {
		t.Fatal(changes, err)
	}
	if change := changes[0]; !errors.Is(change.Reason, track.ErrPinned) || count(change.Dirty) != count(change.Populated) {
		t.Errorf("%v, %d of %d pages dirty", change.Reason, count(change.Dirty), count(change.Populated))
	}
}

// TestKilledTrackerLeavesTheProgram: kill -9 of who tracks, at any moment between or amid rounds, is not noticed.
func TestKilledTrackerLeavesTheProgram(t *testing.T) {
	needKind(t, track.WriteProtect)
	c := newCgroup(t)
	cmd := c.hog(t, "writes,moves,drops,protects")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 12 {
		tracker := exec.Command(self, c.dir)
		tracker.Env = append(os.Environ(), hogVariable+"=tracker")
		tracker.Stderr = os.Stderr
		out, err := tracker.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := tracker.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready <nil>\n" {
			t.Fatalf("the tracker said %q, %v", line, err)
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		if err := tracker.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = tracker.Wait()
		time.Sleep(20 * time.Millisecond)
		running(t, cmd)
		if n := userfaultfds(cmd.Process.Pid); n > 0 {
			t.Fatalf("%d userfaultfds are left", n)
		}
	}
	// And the next tracker finds everything as it should be.
	set, r := open(t, c, track.WriteProtect), newReplica()
	for range 4 {
		changes, err := set.Round(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.apply(t, changes)
	}
	if _, err := c.freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	changes, err := set.Final(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.apply(t, changes)
	r.verify(t, []int{cmd.Process.Pid})
}

// trackerMain tracks until it is killed.
func trackerMain() {
	c := &cgroup{dir: os.Args[1]}
	set, err := track.Open(context.Background(), c.pids, &track.Options{Kind: track.WriteProtect})
	check(err)
	for i := 0; ; i++ {
		changes, err := set.Round(context.Background())
		check(err)
		if i == 0 && len(changes) > 0 {
			fmt.Fprintln(os.Stdout, "ready", changes[0].Reason)
		}
	}
}

// TestFilterThatCannotBeSuspended: a filter kills a program that calls userfaultfd. Who may not suspend it, because it has a
// filter itself, leaves the program alone.
func TestFilterThatCannotBeSuspended(t *testing.T) {
	needKind(t, track.WriteProtect)
	c := newCgroup(t)
	cmd := c.hog(t, "seccomp,writes")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tracker := exec.Command(self, c.dir)
	tracker.Env = append(os.Environ(), hogVariable+"=filtered tracker")
	tracker.Stderr = os.Stderr
	out, err := tracker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tracker.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = tracker.Process.Kill()
	_ = tracker.Wait()
	if !strings.Contains(line, ptrace.ErrSeccomp.Error()) {
		t.Errorf("the tracker said %q, %v", line, err)
	}
	running(t, cmd)
}

// TestSharedAddressSpaceIsToldOnce: the child of vfork has its parent's memory, not a copy.
func TestSharedAddressSpaceIsToldOnce(t *testing.T) {
	for _, kind := range kinds(t) {
		t.Run(string(kind), func(t *testing.T) {
			c := newCgroup(t)
			parent := c.hog(t, "idle,vfork").Process.Pid
			pids, err := c.pids()
			for end := time.Now().Add(10 * time.Second); err == nil && len(pids) < 2 && time.Now().Before(end); pids, err = c.pids() {
				time.Sleep(time.Millisecond)
			}
			if err != nil || len(pids) != 2 {
				t.Fatal(pids, err)
			}
			set := open(t, c, kind)
			first := one(t, set)
			if again := one(t, set); first.Pid != parent || again.Space != first.Space || again.Reason != nil || again.New {
				t.Errorf("%d, %d is the parent; spaces %d, %d; %v", first.Pid, parent, first.Space, again.Space, again.Reason)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	none := func() ([]int, error) { return nil, nil }
	if _, err := track.Open(t.Context(), none, &track.Options{Kind: "guess"}); !errors.Is(err, track.ErrKind) {
		t.Errorf("an unknown kind: %v", err)
	}
	set, err := track.Open(t.Context(), none, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Round(t.Context()); !errors.Is(err, track.ErrClosed) {
		t.Errorf("a closed set: %v", err)
	}
	broken := errors.New("no such cgroup")
	if set, err = track.Open(t.Context(), func() ([]int, error) { return nil, broken }, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := set.Final(t.Context()); !errors.Is(err, broken) {
		t.Errorf("no list of processes: %v", err)
	}
}

// one is the single change of a round.
func one(t *testing.T, set *track.Set) track.Change {
	t.Helper()
	changes, err := set.Round(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != 1 {
		t.Fatalf("%d changes", len(changes))
	}
	return changes[0]
}

func needKind(t *testing.T, kind track.Kind) {
	t.Helper()
	testutil.Root(t)
	_, err := track.Open(t.Context(), func() ([]int, error) { return nil, nil }, &track.Options{Kind: kind, Freeze: noFreeze})
	testutil.Kernel(t, !errors.Is(err, track.ErrKind), "tracking by "+string(kind))
	testutil.Need(t, err == nil, "a kernel that tracks by "+string(kind))
}

func waitState(t *testing.T, pid int, state byte) {
	t.Helper()
	for range 2000 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if rest := text[strings.LastIndexByte(string(text), ')')+2:]; rest[0] == state {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("process %d does not come to be %c", pid, state)
}

func waitid(kind, id int, info *[128]byte, options int) error {
	_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, uintptr(kind), uintptr(id), uintptr(unsafe.Pointer(info)), uintptr(options), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
