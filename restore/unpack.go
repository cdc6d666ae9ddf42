package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/sys/scratch"
)

// Page files that are compressed CRIU cannot read: it is given a set without, in memory, which ends with the restore however that
// ends. It takes no more than the container itself is about to take: CRIU gives back what it has read (auto_dedup). Memory that
// comes later is not in it.

// ErrNoRoom: the host has not enough free memory for the container's, unpacked. Free some, or use LazyPages.
var ErrNoRoom = errors.New("not enough memory to unpack the checkpoint")

// unpack makes the set that CRIU reads. All of it is proven.
func (a *attempt) unpack(ctx context.Context) error {
	plan, err := a.set.Unpack(a.lazyPages)
	if err != nil {
		return err
	}
	free, err := scratch.Free()
	if err != nil {
		return err
	}
	if uint64(plan.Bytes()) > free {
		return noRoom(plan, fmt.Errorf("%d MiB are free", free>>20))
	}
	if a.unpacked, err = scratch.New(plan.Bytes()); err != nil {
		return err
	}
	if err := plan.Write(ctx, a.unpacked.Path()); hole.NoRoom(err) {
		return noRoom(plan, err)
	} else if err != nil {
		return err
	}
	a.options.log().Debug("compressed pages are unpacked", "container", a.prepared.ID(), "bytes", plan.Bytes())
	return nil
}

func noRoom(plan *image.Unpacking, err error) error {
	return fmt.Errorf("%w: it takes %d MiB: %w: free some, or restore with --lazy-pages", ErrNoRoom, plan.Bytes()>>20, err)
}
