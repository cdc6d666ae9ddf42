package handover

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/livemigrate/migrate/internal/wire"
)

// twinSlot is the first slot that is owed.
const twinSlot = 1000

func (m *twinMemory) Promise(context.Context) (Owed, error) {
	if err := m.step("promise"); err != nil {
		return Owed{}, err
	}
	if source, _ := m.states(); source != frozen {
		m.t.Errorf("pages are promised while the source is %s", source)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.final, m.owed = true, make(map[uint64]bool)
	for page := range m.dirty {
		m.promised = append(m.promised, page)
		m.owed[page] = true
	}
	slices.Sort(m.promised)
	return Owed{Slot: twinSlot, Pages: uint64(len(m.promised))}, os.WriteFile(filepath.Join(m.images, "memory.layout"), []byte("layout"), 0o600)
}

// take is a page that is owed, and is not then.
func (m *twinMemory) take(page uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	owed := m.owed[page]
	delete(m.owed, page)
	return owed
}

func (m *twinMemory) give(ctx context.Context, page uint64, lane Lane) (Round, error) {
	if source, _ := m.states(); source != frozen {
		m.t.Errorf("a page that is owed is read while the source is %s", source)
	}
	if !m.take(page) {
		return Round{}, nil
	}
	time.Sleep(4 * time.Millisecond)
	frame := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, page), m.pages[page])
	return Round{Frames: 1, Sent: pageSize}, lane.Send(ctx, frame)
}

func (m *twinMemory) Follow(ctx context.Context, lanes []Lane) (Round, error) {
	if err := m.step("follow"); err != nil {
		return Round{}, err
	}
	var all Round
	for i, page := range m.promised {
		r, err := m.give(ctx, page, lanes[i%len(lanes)])
		if err != nil {
			return all, err
		}
		all.Frames += r.Frames
	}
	return all, nil
}

func (m *twinMemory) Hurry(ctx context.Context, slots []uint64, lane Lane) (Round, error) {
	for _, slot := range slots {
		if r, err := m.give(ctx, m.promised[slot-twinSlot], lane); err != nil {
			return r, err
		}
	}
	return Round{}, m.step("hurry")
}

func (m *twinMemory) Recall(slot uint64, have []Slots) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if slot != twinSlot {
		m.t.Errorf("recalled from slot %d on", slot)
	}
	m.owed = make(map[uint64]bool)
	for _, page := range m.promised {
		m.owed[page] = true
	}
	for _, r := range have {
		for slot := r.First; slot < r.First+r.Pages; slot++ {
			delete(m.owed, m.promised[slot-twinSlot])
		}
	}
}

// twinDebt is what the peer's twin lacks: pages of the source's memory, by slot.
type twinDebt struct {
	*world
	wanted chan uint64
	paid   chan struct{}

	mu      sync.Mutex
	missing map[uint64]bool // pages
	news    chan struct{}
	lost    error
}

func (p twinPlace) Owe(owed Owed) (Debt, error) {
	if err := p.step("owe"); err != nil {
		return nil, err
	}
	d := &twinDebt{world: p.world, wanted: make(chan uint64, 1), paid: make(chan struct{}), missing: make(map[uint64]bool), news: make(chan struct{})}
	for _, page := range p.memory.promised {
		d.missing[page] = true
	}
	if owed != (Owed{twinSlot, uint64(len(d.missing))}) {
		p.t.Errorf("owed are %+v", owed)
	}
	p.store.debt = d
	return d, nil
}

// twinAdopted is a debt that another process has taken over.
type twinAdopted struct {
	*twinDebt
	place twinPlace
}

func (a twinAdopted) Owed() Owed                   { return Owed{twinSlot, uint64(len(a.memory.promised))} }
func (a twinAdopted) Pages(frame []byte) error     { return a.place.Pages(frame) }
func (a twinAdopted) Finish(context.Context) error { return a.step("finish adopted") }

func (d *twinDebt) came(page uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.missing[page] {
		return
	}
	delete(d.missing, page)
	close(d.news)
	d.news = make(chan struct{})
	if len(d.missing) == 0 {
		close(d.paid)
	}
}

// pay ends it.
func (d *twinDebt) pay() { close(d.paid) }

// need has a task wait for a page.
func (d *twinDebt) need(ctx context.Context, i int) error {
	d.wanted <- twinSlot + uint64(i)
	for {
		d.mu.Lock()
		missing, news := d.missing[d.memory.promised[i]], d.news
		d.mu.Unlock()
		if !missing {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *twinDebt) Wanted(ctx context.Context) ([]uint64, error) {
	select {
	case slot := <-d.wanted:
		return []uint64{slot}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *twinDebt) Missing() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return uint64(len(d.missing))
}

func (d *twinDebt) Stored(slot uint64, size int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	promised := d.memory.promised
	var bits []byte
	for i := slot - twinSlot; i < uint64(len(promised)) && len(bits) < min(size, wire.MaxHeld); i += 8 {
		var b byte
		for j := range min(8, uint64(len(promised))-i) {
			if !d.missing[promised[i+j]] {
				b |= 1 << j
			}
		}
		bits = append(bits, b)
	}
	return bits
}

func (d *twinDebt) Paid() <-chan struct{} { return d.paid }

func (d *twinDebt) Err() error { return d.lost }
