package keeper

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/wire"
)

// debt is what a received container lacks of its memory while it runs.
type debt struct {
	*feeding
	wanted chan uint64
	paid   chan struct{}
	err    error        // once paid
	init   atomic.Int64 // the container's init, when it runs and is a child of this process
}

// owe makes the feeder wait for pages.
func (f *feeding) owe(owed feed.Owed) (*debt, error) {
	if last := owed.Slot + owed.Pages - 1; last > f.store.Last() {
		return nil, fmt.Errorf("%w: its memory takes %d MiB of the store of pages, which may have %d",
			wire.ErrNoSpace, last*memory.PageSize>>20, f.store.Last()*memory.PageSize>>20)
	}
	if err := f.feed.Owe(owed); err != nil {
		return nil, err
	}
	return newDebt(f), nil
}

func newDebt(f *feeding) *debt {
	d := &debt{feeding: f, wanted: make(chan uint64, 256), paid: make(chan struct{})}
	go d.listen()
	go d.settle()
	return d
}

// listen ends with the feeding.
func (d *debt) listen() {
	defer close(d.wanted)
	for {
		slot, err := d.feed.Wanted()
		if err != nil {
			return
		}
		select {
		case d.wanted <- slot:
		case <-d.feed.Done():
			return
		}
	}
}

// settle waits until all has come, or nobody needs it any more, or nobody can be given it.
func (d *debt) settle() {
	defer close(d.paid)
	select {
	case <-d.feed.Complete():
	case <-d.feed.Done():
		switch err := d.feed.Err(); {
		case err != nil:
			d.err = fmt.Errorf("feed memory: %w", err)
		case d.feed.Missing() > 0 && !d.unneeded():
			d.err = wire.ErrEnded
		}
	}
}

// exitLimit is how long init may take to be gone when its memory is: the other processes of its pid namespace go first.
const exitLimit = 5 * time.Second

// killedLimit is how long init may keep its memory when all of the container was killed, and others' is gone.
const killedLimit = time.Second

// unneeded tells whether nobody lacks what has not come: the container goes on, and only processes that have ended or have given
// memory up would have needed it, or its program came to its end by itself. One that was killed may have been killed because it
// stood still: the source still has what it was.
func (d *debt) unneeded() bool {
	pid := int(d.init.Load())
	for begun := time.Now(); pid != 0 && time.Since(begun) < exitLimit; time.Sleep(5 * time.Millisecond) {
		switch exit, err := process.ChildExit(pid); {
		case err != nil:
			return false
		case exit != process.Lives:
			return exit == process.Exited
		case time.Since(begun) > killedLimit && process.HasMemory(pid):
			return true // the feeder lets go of memory that is there still only when all of it is in place
		}
	}
	return false
}

// Wanted returns slots whose pages a task waits for.
func (d *debt) Wanted(ctx context.Context) ([]uint64, error) {
	var slots []uint64
	select {
	case slot, ok := <-d.wanted:
		if !ok {
			<-ctx.Done() // nobody asks any more
			return nil, ctx.Err()
		}
		slots = append(slots, slot)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for len(slots) < cap(d.wanted) {
		select {
		case slot, ok := <-d.wanted:
			if !ok {
				return slots, nil
			}
			slots = append(slots, slot)
		default:
			return slots, nil
		}
	}
	return slots, nil
}

// Missing is how many pages have not come.
func (d *debt) Missing() uint64 { return d.feed.Missing() }

// Stored is which have.
func (d *debt) Stored(slot uint64, size int) []byte { return d.feed.Held(slot, size) }

// Paid is closed when nothing is missing, or nothing will come.
func (d *debt) Paid() <-chan struct{} { return d.paid }

// Err is why not all has come.
func (d *debt) Err() error { return d.err }
