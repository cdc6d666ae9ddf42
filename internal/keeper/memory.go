package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/memory/reader"
	"github.com/livemigrate/migrate/internal/memory/track"
	"github.com/livemigrate/migrate/internal/preflight"
)

// errUnread: a page that CRIU left to us could not be read, or the peer was not sent it. The move must not go on.
var errUnread = errors.New("memory of the container could not be read")

// Memory takes hold of the private memory of the container's processes.
func (c *container) Memory(ctx context.Context) (handover.Memory, error) {
	if !c.order.Feed {
		return nil, nil
	}
	if err := c.fits(); err != nil {
		return nil, err
	}
	c.watchWork()
	set, err := track.Open(ctx, c.Processes, &track.Options{Freeze: c.Halt, Log: c.log})
	if err != nil {
		return nil, err
	}
	ledger, err := pages.NewLedger(&pages.LedgerOptions{First: pages.FramePages})
	if err != nil {
		return nil, errors.Join(err, set.Close())
	}
	// The lanes share two processors with the container and, inside the freeze, with CRIU.
	sender, err := pages.NewSender(ledger, &pages.SenderOptions{Compression: compressions()[c.order.Compress], Patient: true})
	if err != nil {
		return nil, errors.Join(err, ledger.Close(), set.Close())
	}
	if set.Kind() == track.SoftDirty {
		if err := checkpoint.ClearsSoftDirty(c.Container); err != nil {
			return nil, errors.Join(err, ledger.Close(), set.Close())
		}
	}
	c.log.Info("memory is followed", "tracker", set.Kind())
	c.memory = &privateMemory{container: c, set: set, ledger: ledger, sender: sender, log: c.log}
	return c.memory, nil
}

// privateMemory is the container's private anonymous memory at the source, as the handover wants it.
type privateMemory struct {
	container *container
	set       *track.Set
	ledger    *pages.Ledger
	sender    *pages.Sender
	promised  []promised      // by slot
	unsettled bool            // the last round's barrier is not known to have been passed; the next call says so
	unsure    ranges          // what a round has read, until its barrier is passed: it may have to go again
	final     <-chan lastLook // what the tracker tells of the freeze, once; nil while nobody has asked
	log       *slog.Logger
}

// Round sends what the processes have written since the one before.
func (m *privateMemory) Round(ctx context.Context, lanes []handover.Lane) (handover.Round, error) {
	m.settle()
	if err := m.container.fits(); err != nil {
		return handover.Round{}, err
	}
	began := time.Now()
	seen, err := m.set.Round(ctx)
	if err != nil {
		return handover.Round{}, err
	}
	looked := time.Since(began)
	var changes []pages.Change
	for _, s := range seen {
		if !s.New {
			m.ledger.Keep(s.Space, s.Populated)
		}
		read := reader.Normal(append(slices.Clone(s.Dirty), common(m.unsure[s.Space], s.Populated)...))
		changes = append(changes, pages.Change{Pid: s.Pid, Space: s.Space, New: s.New, Read: read})
	}
	m.dropExcept(seen)
	m.unsure = make(ranges)
	for _, c := range changes {
		m.unsure[c.Space] = c.Read
	}
	round, err := m.send(ctx, changes, lanes)
	round.Looked = looked
	return round, err
}

// settle: whoever asks for more has seen the peer acknowledge what was sent before.
func (m *privateMemory) settle() {
	if m.unsettled {
		m.ledger.Settle()
		m.unsettled, m.unsure = false, nil
	}
}

// ranges are pages of address spaces, in order.
type ranges map[uint64][]memory.Range

// Regain says what became of the last round, whose link was lost. What the peer does not have of it is read again, with
// what was written meanwhile: the tracker counts it as clean.
func (m *privateMemory) Regain(stored bool, have []handover.Slots) {
	if stored {
		m.settle()
		return
	}
	m.unsettled = false
	m.ledger.Regain(toSlots(have))
}

// Top is the last slot of the ledger.
func (m *privateMemory) Top() uint64 { return m.ledger.Usage().Top }

func toSlots(all []handover.Slots) []pages.Slots {
	list := make([]pages.Slots, 0, len(all))
	for _, s := range all {
		list = append(list, pages.Slots(s))
	}
	return list
}

// dropExcept forgets address spaces that are gone.
func (m *privateMemory) dropExcept(seen []track.Change) {
	for _, id := range m.ledger.Spaces() {
		if !slices.ContainsFunc(seen, func(s track.Change) bool { return s.Space == id }) {
			m.ledger.Drop(id)
		}
	}
}

func (m *privateMemory) send(ctx context.Context, changes []pages.Change, lanes []handover.Lane) (handover.Round, error) {
	round, err := m.sender.Send(ctx, changes, toLanes(lanes))
	m.unsettled = err == nil
	m.log.Debug("memory sent", "round", round)
	return told(round), err
}

func toLanes(lanes []handover.Lane) []pages.Lane {
	var to []pages.Lane
	for _, lane := range lanes {
		to = append(to, func(ctx context.Context, frame []byte) error { return lane.Send(ctx, frame) })
	}
	return to
}

func told(r pages.Round) handover.Round {
	return handover.Round{Scanned: r.Scanned, Sent: r.Wire, Frames: r.Frames, Took: r.Took}
}

// frozen is called when the container stands still and CRIU has not begun. The last look goes on beside CRIU's dump, which
// leaves it a processor; what CRIU does to memory meanwhile it undoes before anything is read. Where CRIU uses the kernel's
// soft-dirty bits it is about to clear them, and has to wait.
func (m *privateMemory) frozen(ctx context.Context) {
	final := make(chan lastLook, 1)
	m.final = final
	find := func() {
		seen, err := m.set.Final(ctx)
		final <- lastLook{seen, err}
	}
	if m.set.Kind() == track.SoftDirty {
		find()
	} else {
		go find()
	}
}

// lastLook is what was written until the freeze.
type lastLook struct {
	seen []track.Change
	err  error
}

// lastSeen is what was written until the freeze.
func (m *privateMemory) lastSeen(ctx context.Context) ([]track.Change, error) {
	if m.final == nil {
		return m.set.Final(ctx)
	}
	look := <-m.final
	m.final = nil
	return look.seen, look.err
}

// Final sends what the peer lacks of the pages that CRIU has left to us, and writes where it finds each of them.
func (m *privateMemory) Final(ctx context.Context, lanes []handover.Lane) (handover.Round, error) {
	m.settle()
	held := m.container.held
	if held == nil {
		return handover.Round{}, errors.New("send memory of a container that was not dumped")
	}
	if err := held.fit(); err != nil {
		return handover.Round{}, err
	}
	seen, err := m.lastSeen(ctx)
	if err != nil {
		return handover.Round{}, err
	}
	m.dropExcept(seen)
	var changes []pages.Change
	spaces := make([]uint64, len(held.Left()))
	for i, left := range held.Left() {
		change := m.last(seen, left)
		spaces[i] = change.Space
		changes = append(changes, change)
	}
	round, err := m.send(ctx, changes, lanes)
	if err != nil {
		return round, err
	}
	return round, m.writeLayout(held.Left(), spaces)
}

// lastSpace is set in the ids of spaces that only the end knows: no tracker's has it.
const lastSpace = 1 << 63

// last is what has to be sent of a process at the end. CRIU's word counts of which pages there are.
func (m *privateMemory) last(seen []track.Change, left checkpoint.Left) pages.Change {
	i := slices.IndexFunc(seen, func(s track.Change) bool { return s.Pid == left.Pid })
	if i < 0 || seen[i].New {
		space := lastSpace | uint64(left.Pid)
		return pages.Change{Pid: left.Pid, Space: space, New: true, Read: left.Pages}
	}
	s := seen[i]
	m.ledger.Keep(s.Space, left.Pages)
	read := common(s.Dirty, left.Pages)
	read = append(read, m.ledger.Missing(s.Space, left.Pages)...)
	return pages.Change{Pid: left.Pid, Space: s.Space, Read: reader.Normal(read)}
}

// writeLayout tells the peer's feeder where in its store each page is. Each must be there: a page that is in no run would be
// zero in the restored process.
func (m *privateMemory) writeLayout(all []checkpoint.Left, spaces []uint64) error {
	for i, left := range all {
		if missing := m.ledger.Missing(spaces[i], left.Pages); len(missing) > 0 {
			return fmt.Errorf("%w: process %d, %d pages at %#x", errUnread, left.VPid, missing[0].Pages, missing[0].Start)
		}
	}
	return m.writeRuns(all, spaces)
}

func (m *privateMemory) writeRuns(all []checkpoint.Left, spaces []uint64) error {
	var layout feed.Layout
	for i, left := range all {
		space := feed.Space{Pid: left.VPid}
		for _, run := range m.ledger.Runs(spaces[i]) {
			space.Runs = append(space.Runs, feed.Run{Range: memory.Range{Start: run.Start, Pages: run.Pages}, Slot: run.Slot})
		}
		layout.Spaces = append(layout.Spaces, space)
	}
	slices.SortFunc(layout.Spaces, func(a, b feed.Space) int { return a.Pid - b.Pid })
	text, err := layout.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.container.held.images, feed.LayoutName), text, 0o600); err != nil {
		return fmt.Errorf("write memory layout: %w", err)
	}
	return nil
}

// Load is what the container puts on CRIU.
func (m *privateMemory) Load() handover.Load {
	l := handover.Load{Memory: m.container.resident(), Copied: m.copied(), Mounts: len(m.container.Spec().Mounts)}
	if pids, err := m.container.Processes(); err == nil {
		l.Processes = len(pids)
	}
	return l
}

// copied is what the container has in shared memory and in tmpfs, where most of that is.
func (m *privateMemory) copied() uint64 {
	used, err := preflight.UsageOf(m.container.State().CgroupPaths)
	if err != nil {
		m.log.Debug("size of shared memory", "error", err)
		return 0
	}
	return used.Shared
}

// Close lets the processes be as they were.
func (m *privateMemory) Close() error {
	m.container.memory = nil
	var err error
	if m.set != nil {
		err = m.set.Close()
	}
	return errors.Join(err, m.ledger.Close())
}

// common is what two lists have in common. Both are in order, and neither overlaps itself.
func common(a, b []memory.Range) []memory.Range {
	var both []memory.Range
	for len(a) > 0 && len(b) > 0 {
		start, end := max(a[0].Start, b[0].Start), min(a[0].End(), b[0].End())
		if start < end {
			both = append(both, memory.Range{Start: start, Pages: (end - start) / memory.PageSize})
		}
		if a[0].End() < b[0].End() {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}
