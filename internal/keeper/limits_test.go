package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/transport"
)

func TestSlotsAreAsManyAsTheLimit(t *testing.T) {
	places := Places{Root: filepath.Join(t.TempDir(), "state")}
	var taken []*slot
	for range 3 {
		s, err := places.takeSlot(3)
		if err != nil || s == nil {
			t.Fatalf("slot %d of 3: %v, %v", len(taken), s, err)
		}
		taken = append(taken, s)
	}
	if s, err := places.takeSlot(3); s != nil || err != nil {
		t.Errorf("a fourth slot of 3: %v, %v", s, err)
	}
	err := taken[1].Close()
	if err != nil {
		t.Fatal(err)
	}
	if taken[1], err = places.takeSlot(3); taken[1] == nil || err != nil {
		t.Errorf("a slot that was given back: %v, %v", taken[1], err)
	}
	for _, s := range taken {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(places.run()); err != nil || len(left) > 0 {
		t.Errorf("slots leave %v, %v", left, err)
	}
}

func TestRefusalNamesTheLimit(t *testing.T) {
	p := &place{
		hello: &wire.Hello{MemoryBytes: 600 << 20, Trees: []*wire.Tree{{Bytes: 300 << 20}, {Bytes: 200 << 20}}},
		host:  &host{order: &PeerOrder{Limits: Limits{Size: 1 << 30}}},
	}
	err := p.tooLarge().Refusal()
	if !errors.Is(err, wire.ErrFull) || !strings.Contains(err.Error(), "1100 MiB") || !strings.Contains(err.Error(), "1024 MiB at most (--max-size)") {
		t.Errorf("too large: %v", err)
	}
	p.hello.MemoryBytes = 1 << 63 // and no overflow makes it small
	p.hello.Trees[0].Bytes = 1 << 63
	if p.tooLarge() == nil {
		t.Error("sizes that overflow are small")
	}
	p.host.order.Limits.Size = 0
	if p.tooLarge() != nil {
		t.Error("a limit without a limit")
	}
	if err := allBusy(7); !errors.Is(err, wire.ErrFull) || !strings.Contains(err.Error(), "7 containers already") {
		t.Errorf("busy: %v", err)
	}
}

// One peer that opens sessions without end leaves others theirs, and no more processes are started than may be.
func TestKeepersAreBounded(t *testing.T) {
	var c crowd
	const most = keepersPerMove*2 + moreKeepers
	var leave []func()
	enter := func(peer string) error {
		l, err := c.enter(peer, 2)
		if err == nil {
			leave = append(leave, l)
		}
		return err
	}
	for range 1000 {
		if err := enter("hostile"); err != nil && !errors.Is(err, transport.ErrBusy) {
			t.Fatal(err)
		}
	}
	if len(leave) != most/2 {
		t.Errorf("one peer has %d keepers, want %d", len(leave), most/2)
	}
	if err := enter("honest"); err != nil {
		t.Errorf("another peer: %v", err)
	}
	for range 1000 {
		_ = enter("third")
	}
	if len(leave) != most {
		t.Errorf("there are %d keepers, want %d", len(leave), most)
	}
	for _, l := range leave {
		l()
		l() // counts once
	}
	if c.all != 0 || len(c.of) != 0 {
		t.Errorf("%d keepers are counted of %d peers when all are gone", c.all, len(c.of))
	}
}
