package keeper

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/pages"
)

// promised is neighbouring pages of a process that the peer gets later.
type promised struct {
	slot uint64 // of the first
	memory.Range
	pid   int
	space uint64
}

// Promise writes where the peer is going to find each page that CRIU has left to us, and sends none of them. What was written
// since the last round is owed, in slots that were never used: the old bytes of a page must not pass for the new ones.
func (m *privateMemory) Promise(ctx context.Context) (handover.Owed, error) {
	m.settle()
	held := m.container.held
	if held == nil {
		return handover.Owed{}, errors.New("promise memory of a container that was not dumped")
	}
	if err := held.fit(); err != nil {
		return handover.Owed{}, err
	}
	seen, err := m.lastSeen(ctx)
	if err != nil {
		return handover.Owed{}, err
	}
	m.dropExcept(seen)
	top := m.ledger.Usage().Top
	spaces := make([]uint64, len(held.Left()))
	forgotten := map[uint64]bool{} // processes may share a space
	for i, left := range held.Left() {
		change := m.last(seen, left)
		spaces[i] = change.Space
		if !forgotten[change.Space] {
			m.ledger.Gone(change.Space, change.Read)
			forgotten[change.Space] = true
		}
		if err := m.ledger.Promise(change.Space, left.Pages); err != nil {
			return handover.Owed{}, err
		}
	}
	m.ledger.Fix()
	if err := m.writeRuns(held.Left(), spaces); err != nil {
		return handover.Owed{}, err
	}
	for i, left := range held.Left() {
		m.list(left.Pid, spaces[i], top)
	}
	owed := handover.Owed{Slot: top + 1, Pages: m.ledger.Usage().Top - top}
	return owed, nil
}

// list notes where the pages of a process are whose slots are above top.
func (m *privateMemory) list(pid int, space, top uint64) {
	for _, run := range m.ledger.Runs(space) {
		if run.Slot > top {
			r := memory.Range{Start: run.Start, Pages: run.Pages}
			m.promised = append(m.promised, promised{slot: run.Slot, Range: r, pid: pid, space: space})
		}
	}
	slices.SortFunc(m.promised, func(a, b promised) int { return int(int64(a.slot) - int64(b.slot)) })
}

// Follow sends what is owed.
func (m *privateMemory) Follow(ctx context.Context, lanes []handover.Lane) (handover.Round, error) {
	var changes []pages.Change
	for _, p := range m.promised {
		if !slices.ContainsFunc(changes, func(c pages.Change) bool { return c.Space == p.space }) {
			changes = append(changes, pages.Change{Pid: p.pid, Space: p.space, Read: m.ledger.Owed(p.space)})
		}
	}
	round, err := m.sender.Send(ctx, changes, toLanes(lanes))
	m.log.Debug("memory followed", "round", round, "error", err)
	return told(round), errors.Join(err, complete(round))
}

// complete finds pages that nobody will have any more.
func complete(round pages.Round) error {
	if len(round.Ended) > 0 || round.Gone > 0 {
		return fmt.Errorf("%w after it was promised: %d bytes, ended processes %v", errUnread, round.Gone, round.Ended)
	}
	return nil
}

// hurryPages is how many pages go with one that is waited for: it is likely that the next are wanted next.
const hurryPages = 16

// Hurry sends promised pages that a task at the peer waits for.
func (m *privateMemory) Hurry(ctx context.Context, slots []uint64, lane handover.Lane) (handover.Round, error) {
	var all pages.Round
	for _, slot := range slots {
		i, found := slices.BinarySearchFunc(m.promised, slot, func(p promised, slot uint64) int {
			switch {
			case p.slot+p.Pages <= slot:
				return -1
			case p.slot > slot:
				return 1
			}
			return 0
		})
		if !found {
			m.log.Warn("a page is asked for that was not promised", "slot", slot)
			continue
		}
		p := m.promised[i]
		skip := slot - p.slot
		r := memory.Range{Start: p.Start + skip*memory.PageSize, Pages: min(hurryPages, p.Pages-skip)}
		round, err := m.sender.SendNow(ctx, pages.Change{Pid: p.pid, Space: p.space, Read: []memory.Range{r}}, toLanes([]handover.Lane{lane})[0])
		if err := errors.Join(err, complete(round)); err != nil {
			return told(all), err
		}
		all.Wire += round.Wire
		all.Scanned += round.Scanned
		all.Frames += round.Frames
	}
	return told(all), nil
}

// Recall makes owed what the peer does not have.
func (m *privateMemory) Recall(slot uint64, have []handover.Slots) {
	m.ledger.Recall(slot, toSlots(have))
}
