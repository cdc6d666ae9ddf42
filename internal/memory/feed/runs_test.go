package feed

import (
	"math/rand/v2"
	"testing"
)

// TestRunsAreWhatAMapOfPagesIs: the list against the simplest thing that does the same.
func TestRunsAreWhatAMapOfPagesIs(t *testing.T) {
	const space = 4000
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 3))
		pages := map[uint64]uint64{}
		var list []Run
		for at, slot := uint64(1), uint64(1); at < space; {
			n := 1 + random.Uint64N(5)
			list = append(list, run(at, n, slot))
			for i := range n {
				pages[at+i] = slot + i
			}
			at, slot = at+n+random.Uint64N(3), slot+n+random.Uint64N(2)
		}
		l := makeRuns(list)
		before, was := l, len(pages)
		for range 300 {
			from, n := random.Uint64N(space), 1+random.Uint64N(60)
			switch random.IntN(3) {
			case 0:
				var out []Run
				l, out = l.cut(from*pageSize, (from+n)*pageSize)
				for _, r := range out {
					for i := range r.Pages {
						at := r.Start/pageSize + i
						if pages[at] != r.Slot+i || at < from || at >= from+n {
							t.Fatalf("cut out page %d of slot %d", at, r.Slot+i)
						}
						delete(pages, at)
					}
				}
				for at := from; at < from+n; at++ {
					if _, ok := pages[at]; ok {
						t.Fatalf("page %d was not cut", at)
					}
				}
			case 1:
				to := random.Uint64N(space)
				if to < from+n && from < to+n {
					continue
				}
				l, _, _ = l.move(from*pageSize, to*pageSize, n*pageSize)
				for i := range n {
					delete(pages, to+i)
					if slot, ok := pages[from+i]; ok {
						pages[to+i] = slot
						delete(pages, from+i)
					}
				}
			case 2:
				r, ok := l.at(from*pageSize + 100)
				slot, want := pages[from]
				if ok != want || ok && r.Slot != slot {
					t.Fatalf("page %d: slot %d, want %d", from, r.Slot, slot)
				}
			}
			if int(l.pages()) != len(pages) {
				t.Fatalf("%d pages, want %d", l.pages(), len(pages))
			}
			var end uint64
			for _, r := range l.all(nil) {
				if r.Start < end || r.Pages == 0 {
					t.Fatalf("%#x after %#x", r.Start, end)
				}
				end = r.End()
				if pages[r.Start/pageSize] != r.Slot {
					t.Fatalf("page %d has slot %d", r.Start/pageSize, r.Slot)
				}
			}
		}
		if int(before.pages()) != was {
			t.Error("a list has changed")
		}
	}
}

func TestWithinHasNoMoreThanAskedFor(t *testing.T) {
	l := makeRuns([]Run{run(1, 10, 1), run(20, 10, 20), run(40, 5, 0), run(50, 10, 50)})
	got := l.within(nil, 5*pageSize, 55*pageSize, 18)
	if len(got) != 3 || got[0] != run(5, 6, 5) || got[1] != run(20, 10, 20) || got[2] != run(50, 2, 50) {
		t.Errorf("%v", got)
	}
}
