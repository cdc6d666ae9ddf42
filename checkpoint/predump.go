package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
	"github.com/livemigrate/migrate/runtime"
)

// PreDump writes the container's memory into ImagesDir while it runs, stopping it for a moment only, or not at all where
// the kernel does not track changed memory. A later PreDump or Run that names the directory as its ParentPath writes what
// changed since. ErrNoMemTrack for a page server, deduplication and lazy pages where the kernel does not track.
func PreDump(ctx context.Context, c *runtime.Container, o *Options) error {
	own := *o
	own.compare = o.compares(c)
	if err := own.openStage(true); err != nil {
		return fmt.Errorf("pre-dump container %s: %w", c.ID(), err)
	}
	d := &dump{container: c, options: &own, client: o.Client}
	preDump := d.preDump
	if !o.LeaveMemory && (pagemap.HaveSoftDirty() != nil || own.compare) {
		preDump = d.copyMemory
	}
	err := errors.Join(preDump(ctx), d.closeClient(), own.closeStage())
	if err != nil {
		return fmt.Errorf("pre-dump container %s: %w", c.ID(), err)
	}
	return nil
}

func (d *dump) preDump(ctx context.Context) error {
	if d.options.LeaveMemory {
		return fmt.Errorf("%w: a pre-dump is nothing but memory", ErrWay)
	}
	request, err := d.prepare(ctx)
	if err != nil {
		return err
	}
	features, err := d.client.FeatureCheck(ctx)
	if err != nil {
		return err
	}
	if !features.MemTrack {
		return ErrNoMemTrack
	}
	request.Options.TrackMem = ptr(true)
	// Without it CRIU stops each task by ptrace; with it, it would hold all of them until the memory is written.
	request.Options.FreezeCgroup = nil
	if d.call, err = d.client.PreDump(ctx, request); err != nil {
		return err
	}
	for err == nil {
		var n *criu.Notification
		if n, err = d.call.Next(ctx); n != nil {
			err = d.call.Accept(ctx)
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if d.options.ParentPath == "" {
		if err := trackAnew(d.container); err != nil {
			return err
		}
	}
	return (&Held{dump: d}).complete(ctx)
}
