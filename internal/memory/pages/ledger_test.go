package pages

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/testutil"
)

func newLedger(t testing.TB, o *LedgerOptions) *Ledger {
	t.Helper()
	l, err := NewLedger(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// page is page n, with the content c; content 0 is zeros.
func page(n, c uint64) seen {
	return seen{addr: n * memory.PageSize, zero: c == 0, digest: xxh3.Uint128{Hi: c, Lo: c * 0x9e3779b97f4a7c15}}
}

func note(t testing.TB, l *Ledger, space uint64, pages ...seen) []verdict {
	t.Helper()
	v, err := l.note(space, pages, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func want(t *testing.T, got []verdict, want ...verdict) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(verdict{})); diff != "" {
		t.Error(diff)
	}
}

func TestUnchangedPageIsNotSentAgain(t *testing.T) {
	l := newLedger(t, nil)
	want(t, note(t, l, 1, page(5, 100), page(6, 101), page(7, 0)),
		verdict{toSend, 1}, verdict{toSend, 2}, verdict{zero, 0})
	l.Settle()
	want(t, note(t, l, 1, page(5, 100), page(6, 102), page(7, 103)),
		verdict{same, 0}, verdict{toSend, 2}, verdict{toSend, 3}) // slot 2 is overwritten in place
	if diff := cmp.Diff([]Run{{5 * 4096, 3, 1}}, l.Runs(1)); diff != "" {
		t.Error(diff)
	}
}

func TestChildSharesTheSlotsOfItsParentUntilItWrites(t *testing.T) {
	l := newLedger(t, nil)
	note(t, l, 1, page(5, 100), page(6, 101))
	l.Settle()
	want(t, note(t, l, 2, page(5, 100), page(6, 101)), verdict{shared, 0}, verdict{shared, 0})
	l.Settle()
	want(t, note(t, l, 2, page(5, 200)), verdict{toSend, 3}) // not in place: the parent needs slot 1
	l.Settle()
	want(t, note(t, l, 1, page(5, 300)), verdict{toSend, 1}) // in place: the child has left it
	if diff := cmp.Diff([]Run{{5 * 4096, 1, 3}, {6 * 4096, 1, 2}}, l.Runs(2)); diff != "" {
		t.Error(diff)
	}
	l.Drop(1)
	l.Settle()
	if u := l.Usage(); u.Slots != 2 || u.Unique != 2 {
		t.Errorf("usage %+v", u)
	}
}

func TestSlotIsWrittenOnceARound(t *testing.T) {
	l := newLedger(t, nil)
	want(t, note(t, l, 1, page(1, 100)), verdict{toSend, 1})
	want(t, note(t, l, 1, page(1, 101)), verdict{toSend, 2}) // frames of one round overtake each other
	want(t, note(t, l, 1, page(2, 102)), verdict{toSend, 3}) // slot 1 is not free yet
	l.Settle()
	want(t, note(t, l, 1, page(3, 103)), verdict{toSend, 1})
}

func TestGonePagesFreeTheirSlots(t *testing.T) {
	l := newLedger(t, &LedgerOptions{Slots: 4})
	note(t, l, 1, page(1, 1), page(2, 2), page(3, 3), page(4, 4))
	if _, err := l.note(1, []seen{page(5, 5)}, nil); !errors.Is(err, ErrStoreFull) {
		t.Fatalf("got %v", err)
	}
	l.Gone(1, []memory.Range{{Start: 2 * 4096, Pages: 2}})
	if _, err := l.note(1, []seen{page(5, 5)}, nil); !errors.Is(err, ErrStoreFull) {
		t.Fatalf("a slot is used again within its round: %v", err)
	}
	l.Settle()
	want(t, note(t, l, 1, page(5, 5), page(6, 6)), verdict{toSend, 2}, verdict{toSend, 3})
	l.Settle()
	l.Keep(1, []memory.Range{{Start: 4 * 4096, Pages: 2}})
	if diff := cmp.Diff([]Run{{4 * 4096, 1, 4}, {5 * 4096, 1, 2}}, l.Runs(1)); diff != "" {
		t.Error(diff)
	}
	l.Gone(1, []memory.Range{{Start: 0, Pages: 1 << 50}})
	if l.Runs(1) != nil || l.Usage().Unique != 0 {
		t.Error("pages are left")
	}
}

func TestAbandonedRoundIsMissing(t *testing.T) {
	l := newLedger(t, nil)
	note(t, l, 1, page(1, 1), page(2, 2), page(3, 3), page(4, 0))
	l.Settle()
	note(t, l, 1, page(2, 20), page(5, 50))
	note(t, l, 2, page(9, 20), page(8, 1)) // the first shares what was never acknowledged, the second what was
	l.Abandon()
	if diff := cmp.Diff([]Run{{1 * 4096, 1, 1}, {3 * 4096, 1, 3}, {4 * 4096, 1, 0}}, l.Runs(1)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Run{{8 * 4096, 1, 1}}, l.Runs(2)); diff != "" {
		t.Error(diff)
	}
	all := []memory.Range{{Start: 0, Pages: 3}, {Start: 3 * 4096, Pages: 1000}}
	if diff := cmp.Diff([]memory.Range{{Start: 0, Pages: 1}, {Start: 2 * 4096, Pages: 1}, {Start: 5 * 4096, Pages: 998}}, l.Missing(1, all)); diff != "" {
		t.Error(diff)
	}
	want(t, note(t, l, 1, page(2, 20)), verdict{toSend, 2})
}

func TestRegainedPagesAreThere(t *testing.T) {
	l := newLedger(t, nil)
	note(t, l, 1, page(1, 1), page(2, 2))
	l.Settle()
	note(t, l, 1, page(1, 10), page(3, 30), page(4, 40)) // in slots 1, 3, 4
	note(t, l, 2, page(8, 30), page(9, 40))
	l.Regain([]Slots{{First: 3, Pages: 1}, {First: 9, Pages: 1 << 40}})
	if diff := cmp.Diff([]Run{{2 * 4096, 2, 2}}, l.Runs(1)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Run{{8 * 4096, 1, 3}}, l.Runs(2)); diff != "" {
		t.Error(diff)
	}
	want(t, note(t, l, 1, page(3, 30), page(4, 40)), verdict{same, 0}, verdict{toSend, 1})
}

func TestPromisedPagesGetTheirOwnSlotsWhateverIsInThem(t *testing.T) {
	l := newLedger(t, nil)
	note(t, l, 1, page(1, 1), page(2, 0))
	l.Settle()
	all := []memory.Range{{Start: 1 * 4096, Pages: 5}}
	if err := l.Promise(1, all); err != nil {
		t.Fatal(err)
	}
	l.Fix()
	layout := []Run{{1 * 4096, 1, 1}, {2 * 4096, 1, 0}, {3 * 4096, 3, 2}}
	owed := []memory.Range{{Start: 3 * 4096, Pages: 3}}
	for _, lost := range []bool{true, false} {
		if diff := cmp.Diff(layout, l.Runs(1)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(owed, l.Owed(1)) + cmp.Diff(owed, l.Missing(1, all)); diff != "" {
			t.Error(diff)
		}
		want(t, note(t, l, 1, page(1, 1), page(2, 0), page(3, 1), page(4, 0)),
			verdict{same, 0}, verdict{zero, 0}, verdict{toSend, 2}, verdict{toSend, 3})
		want(t, note(t, l, 1, page(3, 1)), verdict{same, 0}) // it is on its way
		if lost {
			l.Abandon()
		} else {
			l.Settle()
		}
	}
	if diff := cmp.Diff([]memory.Range{{Start: 5 * 4096, Pages: 1}}, l.Owed(1)); diff != "" {
		t.Error(diff)
	}
	for _, p := range []seen{page(9, 1), page(2, 7)} {
		if _, err := l.note(1, []seen{p}, nil); !errors.Is(err, ErrFixed) {
			t.Errorf("got %v", err)
		}
	}
}

// Whatever happens, the ledger says of each page what a store that does as it is told would hold.
func TestLedgerAgreesWithAStore(t *testing.T) {
	for _, digests := range []int{1 << 20, 300, 1} {
		rng := rand.New(rand.NewPCG(1, uint64(digests)))
		l := newLedger(t, &LedgerOptions{Digests: digests, Slots: 5000})
		type key struct{ space, page uint64 }
		truth := map[key]uint64{}
		stored := map[uint32]uint64{}
		for round := range 60 {
			order := rng.Perm(2000)
			failed := round%17 == 16
			var came []Slots
			for _, n := range order[:rng.IntN(400)] {
				k := key{uint64(n % 3), uint64(n) / 3 * uint64(1+n%2*300)}
				content := rng.Uint64N(500)
				v := note(t, l, k.space, page(k.page, content))[0]
				truth[k] = content
				if v.kind == toSend && (!failed || rng.IntN(2) == 0) {
					stored[v.slot] = content
					came = append(came, Slots{First: uint64(v.slot), Pages: 1})
				}
			}
			if failed {
				if round%2 == 0 {
					l.Abandon()
				} else {
					l.Regain(came)
				}
				for k := range truth {
					if len(l.Missing(k.space, []memory.Range{{Start: k.page * 4096, Pages: 1}})) > 0 {
						delete(truth, k)
					}
				}
			} else {
				l.Settle()
			}
			if round%5 == 0 {
				k := key{uint64(rng.IntN(3)), rng.Uint64N(1000)}
				l.Gone(k.space, []memory.Range{{Start: k.page * 4096, Pages: 700}})
				for o := range truth {
					if o.space == k.space && o.page >= k.page && o.page < k.page+700 {
						delete(truth, o)
					}
				}
			}
			got := map[key]uint64{}
			for _, space := range l.Spaces() {
				for _, r := range l.Runs(space) {
					for i := range r.Pages {
						k := key{space, r.Start/4096 + i}
						if r.Slot != 0 {
							got[k] = stored[uint32(r.Slot+i)]
						} else {
							got[k] = 0
						}
					}
				}
			}
			if !maps.Equal(truth, got) {
				t.Fatalf("%d digests, round %d: %s", digests, round, cmp.Diff(truth, got))
			}
		}
		for space := range uint64(3) {
			l.Drop(space)
		}
		l.Settle()
		if u := l.Usage(); u.Slots != 0 || u.Unique != 0 {
			t.Errorf("slots leak: %+v", u)
		}
	}
}

// 2 GB of different pages are in at most 16 MB, 16 GB in less than 52 MB.
func TestLedgerStaysSmall(t *testing.T) {
	if testutil.Race {
		return // it adds its own
	}
	for _, c := range []struct{ pages, most uint64 }{{2 << 18, 17 << 20}, {16 << 18, 52 << 20}} {
		before := heap()
		l := newLedger(t, nil)
		batch := make([]seen, 256)
		var verdicts []verdict
		for n := uint64(0); n < c.pages; n += 256 {
			for i := range batch {
				batch[i] = page(n+uint64(i), n+uint64(i)+1)
			}
			var err error
			if verdicts, err = l.note(1, batch, verdicts[:0]); err != nil {
				t.Fatal(err)
			}
		}
		l.Settle()
		used := heap() - before + uint64(min(int(c.pages), len(l.slots.records.Rows)))*24
		t.Logf("%d pages: %d KiB", c.pages, used>>10)
		if used > c.most {
			t.Errorf("%d pages take %d bytes, more than %d", c.pages, used, c.most)
		}
		if n := len(l.Runs(1)); n != 1 {
			t.Errorf("%d runs", n)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkLedger(b *testing.B) {
	const pages = 1 << 18
	batch := make([]seen, 64)
	for _, c := range []struct {
		name   string
		change uint64
	}{{"same", 0}, {"changed", pages}} {
		b.Run(c.name, func(b *testing.B) {
			l := newLedger(b, nil)
			round := uint64(0)
			all := func() {
				for n := uint64(0); n < pages; n += 64 {
					for i := range batch {
						var x [8]byte
						binary.LittleEndian.PutUint64(x[:], n+uint64(i)+round*c.change)
						batch[i] = seen{addr: (n + uint64(i)) * memory.PageSize, digest: xxh3.Hash128(x[:])}
					}
					note(b, l, 1, batch...)
				}
				l.Settle()
				round++
			}
			all()
			b.SetBytes(pages * memory.PageSize)
			for b.Loop() {
				all()
			}
		})
	}
}
