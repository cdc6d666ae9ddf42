package pages_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/hogtest"
	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/memory/store"
)

func TestMain(m *testing.M) {
	hogtest.Main()
	os.Exit(m.Run())
}

// world is a source and its peer, in one process.
type world struct {
	t      testing.TB
	ledger *pages.Ledger
	sender *pages.Sender
	store  *store.Store
	lanes  []pages.Lane
}

func newWorld(t testing.TB, ledger *pages.LedgerOptions, sender *pages.SenderOptions) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	if w.store, err = store.Open(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if w.ledger, err = pages.NewLedger(ledger); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.ledger.Close() })
	if w.sender, err = pages.NewSender(w.ledger, sender); err != nil {
		t.Fatal(err)
	}
	put := func(_ context.Context, frame []byte) error { return w.store.Put(frame) }
	w.lanes = []pages.Lane{put, put}
	return w
}

func (w *world) round(changes ...pages.Change) pages.Round {
	w.t.Helper()
	r, err := w.sender.Send(w.t.Context(), changes, w.lanes)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ledger.Settle()
	return r
}

// check proves that the store has the range as the hog has filled it.
func (w *world) check(space uint64, r memory.Range, kind hogtest.Kind, seed uint64) {
	w.t.Helper()
	if missing := w.ledger.Missing(space, []memory.Range{r}); len(missing) > 0 {
		w.t.Errorf("missing: %v", missing)
		return
	}
	want, got := make([]byte, memory.PageSize), make([]byte, memory.PageSize)
	for _, run := range w.ledger.Runs(space) {
		for i := range run.Pages {
			addr := run.Start + i*memory.PageSize
			if addr < r.Start || addr >= r.End() {
				continue
			}
			clear(got)
			if run.Slot != 0 {
				if err := w.store.ReadAt(got, run.Slot+i); err != nil {
					w.t.Fatal(err)
				}
			}
			hogtest.Page(want, kind, seed, addr)
			if !bytes.Equal(got, want) {
				w.t.Errorf("page %#x of space %d is wrong", addr, space)
				return
			}
		}
	}
}

func sub(r memory.Range, first, n uint64) memory.Range {
	return memory.Range{Start: r.Start + first*memory.PageSize, Pages: n}
}

const kib = memory.PageSize / 1024

func TestStoreHasEveryKindOfPageAfterEveryRound(t *testing.T) {
	for _, c := range []struct {
		compression pages.Compression
		digests     int
	}{{pages.Auto, 0}, {pages.Never, 0}, {pages.Always, 0}, {pages.Auto, 100}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			w := newWorld(t, &pages.LedgerOptions{Digests: c.digests}, &pages.SenderOptions{Compression: c.compression})
			hog := hogtest.Start(t)
			area := hog.Map(1500)
			parts := []struct {
				r    memory.Range
				kind hogtest.Kind
			}{
				{sub(area, 0, 500), hogtest.Random},
				{sub(area, 500, 100), hogtest.Zeros},
				{sub(area, 600, 300), hogtest.Half},
				{sub(area, 900, 300), hogtest.Text},
				{sub(area, 1200, 300), hogtest.Equal},
			}
			for round := range uint64(3) {
				for _, p := range parts {
					hog.Fill(p.r, p.kind, round)
				}
				w.round(pages.Change{Pid: hog.Pid, Space: 1, Read: []memory.Range{area}})
				for _, p := range parts {
					w.check(1, p.r, p.kind, round)
				}
			}
			hog.Fill(sub(area, 3, 1), hogtest.Zeros, 0)
			hog.Fill(sub(area, 550, 20), hogtest.Random, 9)
			hog.Fill(sub(area, 1300, 10), hogtest.Text, 9)
			hog.Unmap(sub(area, 100, 10))
			w.round(pages.Change{Pid: hog.Pid, Space: 1, Gone: []memory.Range{sub(area, 100, 10)}, Read: []memory.Range{
				sub(area, 1300, 10), sub(area, 0, 10), sub(area, 550, 20), sub(area, 3, 1),
			}})
			w.check(1, sub(area, 0, 3), hogtest.Random, 2)
			w.check(1, sub(area, 3, 1), hogtest.Zeros, 0)
			w.check(1, sub(area, 550, 20), hogtest.Random, 9)
			w.check(1, sub(area, 1300, 10), hogtest.Text, 9)
			w.check(1, sub(area, 1310, 190), hogtest.Equal, 2)
			if diff := cmp.Diff([]memory.Range{sub(area, 100, 10)}, w.ledger.Missing(1, []memory.Range{area})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRoundSendsOnlyWhatThePeerLacks(t *testing.T) {
	w := newWorld(t, nil, nil)
	hog := hogtest.Start(t)
	area := hog.Map(1000)
	hog.Fill(sub(area, 0, 600), hogtest.Random, 1)
	hog.Fill(sub(area, 600, 100), hogtest.Equal, 1)
	hog.Fill(sub(area, 700, 300), hogtest.Zeros, 1)
	all := pages.Change{Pid: hog.Pid, Space: 1, Read: []memory.Range{area}}
	r := w.round(all)
	if r.Scanned != 4000*1024 || r.Zero != 300*kib*1024 || r.Copied != 601*kib*1024 || r.Shared != 99*kib*1024 || r.Same != 0 {
		t.Errorf("first round: %+v", r)
	}
	if r.Wire > r.Copied*102/100 {
		t.Errorf("%d bytes for %d bytes of memory", r.Wire, r.Copied)
	}
	hog.Fill(sub(area, 10, 3), hogtest.Random, 2)
	if r = w.round(all); r.Copied != 3*kib*1024 || r.Same+r.Zero != 997*kib*1024 || r.Frames > 3 {
		t.Errorf("second round: %+v", r)
	}
	child := all // a fork: the same memory in another space
	child.Space, child.New = 2, true
	if r = w.round(child); r.Copied != 0 || r.Wire != 0 {
		t.Errorf("the fork: %+v", r)
	}
	w.check(2, sub(area, 10, 3), hogtest.Random, 2)
	w.check(2, sub(area, 600, 100), hogtest.Equal, 1)
}

func TestTwoTasksWithOneSpaceAreReadOnce(t *testing.T) {
	w := newWorld(t, nil, nil)
	hog := hogtest.Start(t)
	area := hog.Map(300)
	hog.Fill(area, hogtest.Random, 1)
	c := pages.Change{Pid: hog.Pid, Space: 1, Read: []memory.Range{area, sub(area, 7, 20)}}
	if r := w.round(c, c); r.Scanned != area.Bytes() || r.Copied != area.Bytes() {
		t.Errorf("%+v", r)
	}
}

func TestEndedTaskDoesNotEndTheRound(t *testing.T) {
	w := newWorld(t, nil, nil)
	dead, alive := hogtest.Start(t), hogtest.Start(t)
	area := alive.Map(300)
	alive.Fill(area, hogtest.Random, 1)
	dead.Stop()
	r := w.round(pages.Change{Pid: dead.Pid, Space: 1, Read: []memory.Range{area}},
		pages.Change{Pid: alive.Pid, Space: 2, Read: []memory.Range{area}})
	if !slices.Equal(r.Ended, []int{dead.Pid}) {
		t.Errorf("ended: %v", r.Ended)
	}
	w.check(2, area, hogtest.Random, 1)
}

func TestLostLaneLeavesNoPageThatOnlyTheLedgerBelievesIn(t *testing.T) {
	w := newWorld(t, nil, nil)
	hog := hogtest.Start(t)
	area := hog.Map(3000)
	hog.Fill(area, hogtest.Random, 1)
	half := sub(area, 0, 1000)
	w.round(pages.Change{Pid: hog.Pid, Space: 1, Read: []memory.Range{half}})

	lost := errors.New("link lost")
	var mu sync.Mutex
	left := 4
	broken := func(_ context.Context, frame []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if left--; left < 0 {
			return lost
		}
		return w.store.Put(frame)
	}
	hog.Fill(sub(area, 500, 2500), hogtest.Random, 2)
	_, err := w.sender.Send(t.Context(), []pages.Change{{Pid: hog.Pid, Space: 1, Read: []memory.Range{area}}}, []pages.Lane{broken, broken})
	if !errors.Is(err, lost) {
		t.Fatalf("got %v", err)
	}
	w.check(1, sub(area, 0, 500), hogtest.Random, 1)
	missing := w.ledger.Missing(1, []memory.Range{sub(area, 500, 2500)})
	if len(missing) == 0 {
		t.Error("nothing is missing")
	}
	w.round(pages.Change{Pid: hog.Pid, Space: 1, Read: []memory.Range{area}})
	w.check(1, sub(area, 0, 500), hogtest.Random, 1)
	w.check(1, sub(area, 500, 2500), hogtest.Random, 2)
}

func TestCancelledRoundReturnsAtOnce(t *testing.T) {
	w := newWorld(t, nil, nil)
	hog := hogtest.Start(t)
	area := hog.Map(1000)
	hog.Fill(area, hogtest.Random, 1)
	ctx, cancel := context.WithCancel(t.Context())
	stuck := func(ctx context.Context, _ []byte) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	_, err := w.sender.Send(ctx, []pages.Change{{Pid: hog.Pid, Space: 1, Read: []memory.Range{area}}}, []pages.Lane{stuck})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if runs := w.ledger.Runs(1); len(runs) > 0 {
		t.Errorf("the ledger has %v", runs)
	}
}

func TestPromisedPagesFollowInAnyOrder(t *testing.T) {
	w := newWorld(t, nil, nil)
	hog := hogtest.Start(t)
	area := hog.Map(3000)
	hog.Fill(area, hogtest.Random, 1)
	hog.Fill(sub(area, 2000, 500), hogtest.Zeros, 1)
	hog.Fill(sub(area, 2500, 500), hogtest.Equal, 1)
	w.round(pages.Change{Pid: hog.Pid, Space: 1, Read: []memory.Range{sub(area, 0, 100)}})
	if err := w.ledger.Promise(1, []memory.Range{area}); err != nil {
		t.Fatal(err)
	}
	w.ledger.Fix()
	layout := w.ledger.Runs(1)
	done := make(chan error)
	go func() {
		_, err := w.sender.Send(t.Context(), []pages.Change{{Pid: hog.Pid, Space: 1, Read: w.ledger.Owed(1)}}, w.lanes)
		done <- err
	}()
	for i := range uint64(50) {
		fault := pages.Change{Pid: hog.Pid, Space: 1, Read: []memory.Range{sub(area, 2990-i*50, 2)}}
		if _, err := w.sender.SendNow(t.Context(), fault, w.lanes[0]); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.ledger.Settle()
	if owed := w.ledger.Owed(1); len(owed) > 0 {
		t.Errorf("owed: %v", owed)
	}
	if diff := cmp.Diff(layout, w.ledger.Runs(1)); diff != "" {
		t.Error(diff)
	}
	w.check(1, sub(area, 0, 2000), hogtest.Random, 1)
	w.check(1, sub(area, 2000, 500), hogtest.Zeros, 1)
	w.check(1, sub(area, 2500, 500), hogtest.Equal, 1)
}

func TestFullStoreIsNamed(t *testing.T) {
	w := newWorld(t, &pages.LedgerOptions{Slots: 100}, nil)
	hog := hogtest.Start(t)
	area := hog.Map(101)
	hog.Fill(area, hogtest.Random, 1)
	_, err := w.sender.Send(t.Context(), []pages.Change{{Pid: hog.Pid, Space: 1, Read: []memory.Range{area}}}, w.lanes)
	if !errors.Is(err, pages.ErrStoreFull) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkSenderToStore(b *testing.B) {
	for _, kind := range []hogtest.Kind{hogtest.Random, hogtest.Half, hogtest.Zeros, hogtest.Equal} {
		hog := hogtest.Start(b)
		area := hog.Map(64 << 10)
		hog.Fill(area, kind, 1)
		for _, again := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/again=%v", kind, again), func(b *testing.B) {
				w := newWorld(b, nil, nil)
				change := pages.Change{Pid: hog.Pid, Space: 1, New: !again, Read: []memory.Range{area}}
				w.round(change) // the store is warm
				b.SetBytes(int64(area.Bytes()))
				for b.Loop() {
					w.round(change)
				}
			})
		}
		hog.Stop()
	}
}
