package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/memory/track"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime"
)

// A snapshot is a checkpoint of a container that runs on, and that stands still for what is small only:
//
//	1 follow    its private memory is copied while it runs, and what it writes meanwhile again: a few rounds
//	2 Begin     it stands; CRIU writes everything else
//	3 last      the pages that were written since the last round, and those that nobody knew of, are read
//	4 Commit    it runs on
//	5 fill      the copies become CRIU's page files, in CRIU's order; manifest, fsync
//
// Until 4 nothing but the copies costs the container anything, and after it nothing that fails harms it.

// worthFollowing is how much private memory, in bytes, makes it worth to look for what is written: CRIU copies less than
// that in a few milliseconds.
const worthFollowing = 16 << 20

// criuWarnings is the level of CRIU's log. It writes every line of it while the container stands.
const criuWarnings = 2

// wantsSnapshot tells whether memory is copied while the container runs. Where that can't be, CRIU copies it in the freeze.
func (o *Options) wantsSnapshot(ctx context.Context, c *runtime.Container) bool {
	if !o.LeaveRunning || o.LeaveMemory || o.ParentPath != "" && !o.compares(c) || o.LazyPages || o.PageServer != "" || o.AutoDedup {
		return false
	}
	if status, err := c.Status(); err != nil || status == runtime.Paused {
		return false // it stands still anyhow
	}
	if private, err := privateMemory(c); err != nil || private < worthFollowing {
		return false
	}
	kind, err := track.Probe(ctx)
	return err == nil && kind != track.None
}

// privateMemory is how much private anonymous memory the container's processes have, in bytes. What forks share counts more
// than once.
func privateMemory(c *runtime.Container) (bytes uint64, err error) {
	pids, err := c.Processes()
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		status, err := process.ReadStatus(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return 0, err
		}
		bytes += status.Anonymous
	}
	return bytes, nil
}

// snapshot takes the checkpoint. The images of one that fails are removed.
func snapshot(ctx context.Context, c *runtime.Container, o *Options) (err error) {
	if err := (&dump{container: c, options: o}).ready(ctx); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", c.ID(), err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, image.Remove(o.ImagesDir))
		}
	}()
	own := *o
	own.LeaveMemory = true
	if own.LogLevel == 0 && !o.log().Enabled(ctx, slog.LevelDebug) {
		own.LogLevel = criuWarnings
	}
	if _, err := criu.Locate(own.CRIU); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", c.ID(), err)
	}
	f, err := follow(ctx, c, &own)
	if err != nil {
		return fmt.Errorf("copy memory of container %s: %w", c.ID(), err)
	}
	held, err := f.stop(ctx, &own)
	if err != nil {
		return errors.Join(err, f.close())
	}
	// Let go at once: the kernel's notes of what is written cost the container more than we do.
	if err := f.set.Close(); err != nil {
		o.log().Warn("memory of the container is still followed", "container", c.ID(), "error", err)
	}
	began := time.Now()
	if err := held.fill(f.open); err != nil {
		return errors.Join(err, f.close())
	}
	if err := f.close(); err != nil {
		return err
	}
	o.log().Debug("copies of memory are images", "container", c.ID(), "took", time.Since(began))
	return held.complete(ctx)
}

// stop dumps the container and lets it run on, with its last pages read.
func (f *follower) stop(ctx context.Context, o *Options) (*Held, error) {
	before, after := o.BeforeFreeze, o.AfterFreeze
	o.BeforeFreeze = func(ctx context.Context) error {
		// CRIU has been started and has prepared itself meanwhile, and the container has written on.
		if _, err := f.round(ctx); err != nil {
			return err
		}
		if before != nil {
			return before(ctx)
		}
		return nil
	}
	o.AfterFreeze = func(ctx context.Context) error {
		f.frozen = time.Now()
		f.look(ctx)
		if after != nil {
			return after(ctx)
		}
		return nil
	}
	held, err := f.begin(ctx, o)
	if err != nil {
		return nil, err
	}
	dumped := time.Now()
	if err := f.last(ctx, held.Left()); err != nil {
		return nil, errors.Join(fmt.Errorf("copy memory of container %s: %w", f.container.ID(), err), held.Rollback(ctx))
	}
	read := time.Now()
	err = held.Commit(ctx)
	now := time.Now()
	f.log.Debug("the container runs on", "container", f.container.ID(), "way", held.Way(), "stood", now.Sub(f.frozen),
		"dump", dumped.Sub(f.frozen), "pages", read.Sub(dumped), "release", now.Sub(read), "bytes", f.late.used)
	return held, errors.Join(err, f.write())
}

// begin is Begin, again if the container was in a state that passes: the copies stay good.
func (f *follower) begin(ctx context.Context, o *Options) (*Held, error) {
	const tries = 3
	for try := 1; ; try++ {
		held, err := Begin(ctx, f.container, o)
		failure, ok := errors.AsType[*Error](err)
		if err == nil || try == tries || !ok || !failure.Passing() || ctx.Err() != nil {
			return held, err
		}
		f.log.Warn("it could not be dumped at that moment and runs on; trying again", "container", f.container.ID(), "error", err)
	}
}
