package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// Remainder reads from the layout, which the process that made it has left, where the peer expects which page. The container's
// processes are frozen.
func (c *container) Remainder(context.Context) (_ handover.Memory, err error) {
	file, err := os.Open(filepath.Join(c.order.spoolPath(c.move), feed.LayoutName))
	if err != nil {
		return nil, fmt.Errorf("find the memory that is owed: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("find the memory that is owed: %w", err)
	}
	layout, err := feed.ReadLayout(file, info.Size())
	if err != nil {
		return nil, fmt.Errorf("find the memory that is owed: %w", err)
	}
	pids, err := c.innerPids()
	if err != nil {
		return nil, err
	}
	m := &privateMemory{container: c, log: c.log}
	if m.ledger, err = pages.NewLedger(nil); err != nil {
		return nil, err
	}
	if m.sender, err = pages.NewSender(m.ledger, nil); err != nil {
		return nil, errors.Join(err, m.ledger.Close())
	}
	for _, space := range layout.Spaces {
		pid, ok := pids[space.Pid]
		if !ok {
			return nil, errors.Join(fmt.Errorf("%w: process %d is gone", errUnread, space.Pid), m.ledger.Close())
		}
		runs := make([]pages.Run, 0, len(space.Runs))
		for _, r := range space.Runs {
			runs = append(runs, pages.Run{Start: r.Start, Pages: r.Pages, Slot: r.Slot})
		}
		m.ledger.Enter(uint64(space.Pid), runs)
		m.list(pid, uint64(space.Pid), 0)
	}
	c.memory = m
	return m, nil
}

// innerPids are the container's processes by their pids in its own namespace.
func (c *container) innerPids() (map[int]int, error) {
	pids, err := c.Processes()
	if err != nil {
		return nil, err
	}
	inner := make(map[int]int, len(pids))
	for _, pid := range pids {
		status, err := process.ReadStatus(pid)
		if err != nil {
			return nil, err
		}
		inner[status.Pids[len(status.Pids)-1]] = pid
	}
	return inner, nil
}
