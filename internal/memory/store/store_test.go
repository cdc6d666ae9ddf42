package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/hogtest"
	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/memory/store"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestMain(m *testing.M) {
	hogtest.Main()
	os.Exit(m.Run())
}

func open(t testing.TB, o *store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// frames are those of n random pages, in the slots from 1 on.
func frames(t testing.TB, n uint64) (all [][]byte, want []byte) {
	t.Helper()
	hog := hogtest.Start(t)
	area := hog.Map(n)
	hog.Fill(area, hogtest.Random, 1)
	want = make([]byte, area.Bytes())
	for i := range n {
		at := i * memory.PageSize
		hogtest.Page(want[at:at+memory.PageSize], hogtest.Random, 1, area.Start+at)
	}
	ledger, err := pages.NewLedger(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	sender, err := pages.NewSender(ledger, &pages.SenderOptions{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	lane := func(_ context.Context, frame []byte) error {
		all = append(all, bytes.Clone(frame))
		return nil
	}
	change := pages.Change{Pid: hog.Pid, Space: 1, Read: []memory.Range{area}}
	if _, err := sender.Send(t.Context(), []pages.Change{change}, []pages.Lane{lane}); err != nil {
		t.Fatal(err)
	}
	return all, want
}

func TestStoreHoldsWhatWasPutUntilItIsPunched(t *testing.T) {
	const n = 600
	for _, dir := range []string{"", t.TempDir()} {
		all, want := frames(t, n)
		s := open(t, &store.Options{Dir: dir})
		for i := range all {
			if err := s.Put(all[len(all)-1-i]); err != nil { // in any order
				t.Fatal(err)
			}
		}
		got := make([]byte, len(want)+memory.PageSize)
		if err := s.ReadAt(got, 1); err != nil || !bytes.Equal(got[:len(want)], want) {
			t.Fatalf("in %q: the pages differ, %v", dir, err)
		}
		before, err := s.Used()
		if err != nil || before < n*memory.PageSize {
			t.Errorf("%d bytes used, %v", before, err)
		}
		if err := s.Punch(pages.Slots{First: 101, Pages: 400}); err != nil {
			t.Fatal(err)
		}
		clear(want[100*memory.PageSize : 500*memory.PageSize])
		if err := s.ReadAt(got, 1); err != nil || !bytes.Equal(got[:len(want)], want) {
			t.Fatalf("in %q: the pages differ after the punch, %v", dir, err)
		}
		if after, err := s.Used(); err != nil || before-after < 390*memory.PageSize {
			t.Errorf("%d bytes used of %d, %v", after, before, err)
		}
		if dir != "" {
			if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
				t.Errorf("the directory shows %v, %v", names, err)
			}
		}
	}
}

func TestSlotsBeyondTheLimitAreRefused(t *testing.T) {
	all, _ := frames(t, 101)
	s := open(t, &store.Options{Limit: 100 * memory.PageSize})
	if s.Last() != 100 {
		t.Errorf("the last slot is %d", s.Last())
	}
	if err := s.Put(all[0]); !errors.Is(err, pages.ErrFrameSlot) {
		t.Errorf("got %v", err)
	}
	if used, err := s.Used(); used != 0 || err != nil {
		t.Errorf("%d bytes of the refused frame are stored, %v", used, err)
	}
	for _, slots := range []pages.Slots{{First: 0, Pages: 1}, {First: 1}, {First: 100, Pages: 2}, {First: 101, Pages: 1}, {First: 2, Pages: 1<<64 - 1}} {
		if err := s.Punch(slots); !errors.Is(err, store.ErrSlot) {
			t.Errorf("%v: %v", slots, err)
		}
	}
	if err := s.ReadAt(make([]byte, 2*memory.PageSize), 100); !errors.Is(err, store.ErrSlot) {
		t.Errorf("got %v", err)
	}
}

func TestFullDirectoryIsNamedWithTheCure(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=256k", "none", dir).CombinedOutput(); err != nil {
		testutil.Need(t, false, "the right to mount: "+string(out))
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	all, _ := frames(t, 100)
	s := open(t, &store.Options{Dir: dir})
	err := s.Put(all[0])
	if !errors.Is(err, store.ErrNoRoom) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "free space") {
		t.Errorf("got %v", err)
	}
}

func TestStoreInAMissingDirectoryIsRefused(t *testing.T) {
	if _, err := store.Open(&store.Options{Dir: "/does/not/exist"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkPut(b *testing.B) {
	all, want := frames(b, 16<<10)
	for _, warm := range []bool{false, true} {
		name := "cold"
		if warm {
			name = "warm"
		}
		b.Run(name, func(b *testing.B) {
			s := open(b, nil)
			b.SetBytes(int64(len(want)))
			for b.Loop() {
				for _, frame := range all {
					if err := s.Put(frame); err != nil {
						b.Fatal(err)
					}
				}
				if !warm {
					b.StopTimer()
					if err := s.Punch(pages.Slots{First: 1, Pages: 16 << 10}); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
		})
	}
}

// Frames of two lanes overtake each other by any distance: the store grows over places whose pages come later.
func TestPagesOfSeveralLanesOvertakeEachOther(t *testing.T) {
	all, want := frames(t, 4000)
	s := open(t, nil)
	var lanes errgroup.Group
	for first := range 4 {
		lanes.Go(func() error {
			for i := len(all) - 1 - first; i >= 0; i -= 4 {
				if err := s.Put(all[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := lanes.Wait(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if err := s.ReadAt(got, 1); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the pages differ, %v", err)
	}
}
