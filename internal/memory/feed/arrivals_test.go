package feed

import (
	"testing"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/hole"
)

func TestArrivals(t *testing.T) {
	file, err := hole.Memory("arrivals")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if a, err := openArrivals(file, 0, 0); a != nil || err != nil {
		t.Fatalf("an empty list is %v, %v", a, err)
	}
	a, err := openArrivals(file, 100, 200)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	}()
	run := func(slot, pages uint64) Run { return Run{Range: memory.Range{Pages: pages}, Slot: slot} }
	// Two processes share pages, and nobody needs 250 to 299.
	a.need(&Layout{Spaces: []Space{{Runs: []Run{run(50, 100), run(0, 9)}}, {Runs: []Run{run(120, 130)}}}})
	feeder, err := openArrivals(file, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := feeder.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, step := range []struct {
		slot, pages, missing uint64
		has                  map[uint64]uint64 // of 1000 pages from a slot on
	}{
		{0, 0, 150, map[uint64]uint64{1: 99, 99: 1, 100: 0, 249: 0, 250: 1000}},
		{100, 1, 149, map[uint64]uint64{90: 11, 100: 1, 101: 0}},
		{100, 1, 149, map[uint64]uint64{100: 1}}, // again
		{110, 70, 79, map[uint64]uint64{101: 0, 110: 70, 179: 1, 180: 0}},
		{101, 9, 70, map[uint64]uint64{1: 179, 100: 80}},
		{0, 1000, 0, map[uint64]uint64{1: 1000, 180: 1000, 299: 1000, 300: 1000, 5000: 1000}},
	} {
		if got := a.set(step.slot, step.pages); got != step.missing || feeder.missing() != got {
			t.Errorf("%+v: %d are missing, the feeder says %d", step, got, feeder.missing())
		}
		for slot, want := range step.has {
			if got := feeder.has(slot, 1000); got != want {
				t.Errorf("%+v: from %d on there are %d, want %d", step, slot, got, want)
			}
		}
	}
	if got := a.held(100, 10); len(got) != 10 || got[0] != 0xff {
		t.Errorf("held are %x", got)
	}
	if got := a.held(292, 10); len(got) != 1 {
		t.Errorf("held from 292 on are %x", got)
	}
}
