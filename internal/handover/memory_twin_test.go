package handover

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/wire"
)

// twinPages is how many pages the twin of a container has.
const twinPages = 64

// twinMemory is a container's memory that knows when a page was last written: that number is all that a page holds. Its
// frames are of one page: number, content. During each round some pages are written anew, from the first on. A page takes 4 ms.
type twinMemory struct {
	*world

	writes []int // pages that are written during each round, and before the freeze; the last goes on
	pages  [twinPages]uint64
	dirty  map[uint64]bool
	round  map[uint64]bool // what the last round has sent
	clock  uint64
	passes int
	final  bool
	closed int

	mu       sync.Mutex // from here on
	promised []uint64   // pages, by slot
	owed     map[uint64]bool
}

func (m *twinMemory) Load() Load { return Load{Memory: twinPages * pageSize, Processes: 1} }

func newTwinMemory(w *world, writes ...int) *twinMemory {
	m := &twinMemory{world: w, writes: writes, dirty: make(map[uint64]bool)}
	w.memory, w.offers = m, &wire.Offer{Destination: "b", Feeds: true}
	m.write(twinPages)
	return m
}

func (m *twinMemory) write(pages int) {
	m.clock++
	for page := range uint64(pages) {
		m.pages[page] = m.clock
		m.dirty[page] = true
	}
}

func (m *twinMemory) Round(ctx context.Context, lanes []Lane) (Round, error) {
	if err := m.step("round"); err != nil {
		return Round{}, err
	}
	if source, _ := m.states(); source != running {
		m.t.Errorf("a round while the source is %s", source)
	}
	m.round = maps.Clone(m.dirty)
	r, err := m.send(ctx, lanes)
	m.write(m.writes[min(m.passes, len(m.writes)-1)])
	m.passes++
	if err == nil && m.passes == 2 {
		err = m.step("second round")
	}
	return r, err
}

func (m *twinMemory) Regain(stored bool, have []Slots) {
	if stored {
		return
	}
	for _, r := range have {
		for slot := r.First; slot < r.First+r.Pages; slot++ {
			delete(m.round, slot)
		}
	}
	maps.Copy(m.dirty, m.round)
}

func (m *twinMemory) Top() uint64 {
	if len(m.promised) > 0 {
		return twinSlot + uint64(len(m.promised)) - 1
	}
	return twinPages - 1
}

func (m *twinMemory) Final(ctx context.Context, lanes []Lane) (Round, error) {
	if err := m.step("final"); err != nil {
		return Round{}, err
	}
	if source, _ := m.states(); source != frozen {
		m.t.Errorf("the last pages are read while the source is %s", source)
	}
	m.final = true
	r, err := m.send(ctx, lanes)
	return r, errors.Join(err, os.WriteFile(filepath.Join(m.images, "memory.layout"), []byte("layout"), 0o600))
}

func (m *twinMemory) send(ctx context.Context, lanes []Lane) (Round, error) {
	var r Round
	work, ctx := errgroup.WithContext(ctx)
	for page := range m.dirty {
		frame := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, page), m.pages[page])
		work.Go(func() error { return lanes[int(page)%len(lanes)].Send(ctx, frame[:8], frame[8:]) })
		r.Frames++
		r.Sent += pageSize
	}
	r.Scanned, r.Took = r.Sent, time.Duration(r.Frames)*4*time.Millisecond
	time.Sleep(r.Took)
	clear(m.dirty)
	if m.hostile != nil {
		work.Go(func() error { return lanes[0].Send(ctx, m.hostile[:8], m.hostile[8:]) })
		r.Frames++
	}
	return r, work.Wait()
}

func (m *twinMemory) Close() error {
	m.closed++
	return m.step("close memory")
}

// twinStore is what the peer has of it.
type twinStore struct {
	mu     sync.Mutex
	pages  [twinPages]uint64
	came   map[uint64]bool // since the last Settle
	frames int
	debt   *twinDebt
}

func (p twinPlace) Stored(slot uint64, _ int) []byte {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	var bits [twinPages / 8]byte
	for page := range p.store.came {
		bits[page/8] |= 1 << (page % 8)
	}
	return bits[min(slot/8, uint64(len(bits))):]
}

func (p twinPlace) Settle() {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.store.came = make(map[uint64]bool)
}

func (p twinPlace) Yield(ctx context.Context) bool {
	<-ctx.Done()
	return false
}

func (p twinPlace) Pages(frame []byte) error {
	if err := p.step("pages"); err != nil {
		return err
	}
	if p.hangAt == "pages" && p.reached("final") {
		<-p.t.Context().Done()
	}
	if p.hostile != nil && bytes.Equal(frame, p.hostile) { // what a store makes of it
		d, err := pages.NewDecoder(hostileLimit)
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Decode(frame, func(pages.Slots, []byte) error { return nil })
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if p.store.frames++; p.store.frames == twinPages+1 {
		if err := p.step("pages again"); err != nil {
			return err
		}
	}
	p.store.pages[binary.LittleEndian.Uint64(frame)] = binary.LittleEndian.Uint64(frame[8:])
	p.store.came[binary.LittleEndian.Uint64(frame)] = true
	if p.store.debt != nil {
		p.store.debt.came(binary.LittleEndian.Uint64(frame))
	}
	return nil
}

func (p twinPlace) Forget() error {
	p.store.mu.Lock()
	p.store.pages = [twinPages]uint64{}
	p.store.mu.Unlock()
	return p.step("forget")
}

// checkPages finds whether a restore would have the memory: all of it in the store, or none there.
func (p twinPlace) checkPages() {
	want, layout := [twinPages]uint64{}, []byte(nil)
	if p.memory != nil && p.memory.final {
		want, layout = p.memory.pages, []byte("layout")
		for _, page := range p.memory.promised {
			want[page] = p.store.pages[page]
		}
	}
	if p.store.pages != want {
		p.t.Errorf("the peer has %v, want %v", p.store.pages, want)
	}
	if got, _ := os.ReadFile(filepath.Join(p.spool, "memory.layout")); !bytes.Equal(got, layout) {
		p.t.Errorf("layout %q, want %q", got, layout)
	}
}
