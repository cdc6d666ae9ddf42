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

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/memory/store"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// feeding is a received container's private memory: stored as it comes, and fed to the restored processes while they run.
type feeding struct {
	store *store.Store
	feed  *feed.Supervisor
	lazy  bool // the feeder has its layout: the images lack what it feeds
	came  came // since the last round
	log   *slog.Logger
}

// canFeed tells whether this host could feed a container of this configuration.
func canFeed(spec *specs.Spec) bool {
	return feed.Possible(hasUserNamespace(spec)) == nil
}

func hasUserNamespace(spec *specs.Spec) bool {
	return slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.UserNamespace })
}

// storeLimit is what a store may hold, in bytes: it lies in no process's memory, so that the kernel, once there is none left,
// would end one of the others' after the other in vain.
func storeLimit() (uint64, error) {
	available, err := preflight.Available()
	return (available - available/16) / memory.PageSize * memory.PageSize, err
}

// startFeeding opens the store and starts the feeder, which waits for CRIU in dir. stateDir is the container's. later: pages come
// when the container runs, and those first that it waits for.
func startFeeding(ctx context.Context, dir, stateDir string, limit uint64, later bool, log *slog.Logger) (*feeding, error) {
	f := &feeding{log: log}
	var err error
	f.store, err = store.Open(&store.Options{Limit: limit, Scattered: later, Stored: f.stored})
	if err != nil {
		return nil, err
	}
	o := &feed.Options{Dir: dir, Store: []feed.Part{{File: f.store.File()}}, Punch: true, Late: true, StateDir: stateDir, Log: log}
	if f.feed, err = feed.Start(ctx, o); err != nil {
		return nil, errors.Join(err, f.store.Close())
	}
	return f, nil
}

// stored is told of pages that have come.
func (f *feeding) stored(s pages.Slots) {
	f.came.add(s)
	f.feed.Arrived(s.First, s.Pages)
}

// put stores the pages of a frame.
func (f *feeding) put(frame []byte) error {
	err := f.store.Put(frame)
	f.feed.Wake()
	switch {
	case errors.Is(err, store.ErrNoRoom):
		return fmt.Errorf("%w: %w", wire.ErrNoSpace, err)
	case isBadFrame(err):
		return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	return err
}

func isBadFrame(err error) bool {
	for _, bad := range []error{pages.ErrFrameVersion, pages.ErrFrameDigest, pages.ErrFrameLength, pages.ErrFrameForm, pages.ErrFrameSlot} {
		if errors.Is(err, bad) {
			return true
		}
	}
	return false
}

// load gives the feeder the layout that came with the images, if one did.
func (f *feeding) load(images string) error {
	layout, err := os.Open(filepath.Join(images, feed.LayoutName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open memory layout: %w", err)
	}
	defer layout.Close()
	if err := f.feed.Load(layout); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrMalformed, err)
	}
	f.lazy = true
	return nil
}

// handoverLimit bounds the wait for the feeder to take what CRIU has sent it already.
const handoverLimit = 5 * time.Second

// ready: the feeder holds every process's memory. Without that one would run on zeros where its memory is missing.
func (f *feeding) ready(ctx context.Context) error {
	if !f.lazy {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, handoverLimit)
	defer cancel()
	if err := f.feed.AwaitTasks(ctx); err != nil {
		return fmt.Errorf("wait for the feeder to take hold of the memory: %w", err)
	}
	return nil
}

// finish waits until the container has all its memory. One that can't get it is killed: it would stand still for ever.
func (f *feeding) finish(ctx context.Context, c *runtime.Container) error {
	if !f.lazy || c == nil {
		return f.close()
	}
	_ = failpoint.Hit(ctx, failpoint.PeerFeeding)
	err := f.feed.Finish(c.ID(), func() error { return c.KillAll(ctx) })
	return errors.Join(err, f.store.Close())
}

// close ends everything. The processes must have their memory, or be dead.
func (f *feeding) close() error {
	return errors.Join(f.feed.Close(), f.store.Close())
}
