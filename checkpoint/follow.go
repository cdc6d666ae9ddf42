package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/draft"
	"github.com/livemigrate/migrate/internal/memory/reader"
	"github.com/livemigrate/migrate/internal/memory/track"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/runtime"
)

// ErrNoRoom: the image directory's file system has not the room for the container's memory. The text says how much that
// is. Nothing was stopped.
var ErrNoRoom = errors.New("no room for the container's memory")

// errUnread: a page that CRIU has left to us is not to be had, though its process stands still.
var errUnread = errors.New("memory of a process could not be read")

const (
	// fewEnough bytes that are written between two rounds are read in a few milliseconds: it can be stopped.
	fewEnough = 4 << 20
	// maxRounds: who writes faster than memory is copied will not write less.
	maxRounds = 8
	// maxLate bytes are kept in memory while the container stands: the disk may have no time. More go to the file at once.
	maxLate = 64 << 20
)

// follower copies a container's private memory while it runs.
type follower struct {
	container *runtime.Container
	set       *track.Set
	reader    *reader.Reader
	draft     *draft.Draft
	late      late
	final     <-chan look    // what the last look finds, once it has begun
	spaces    map[int]uint64 // the address space of each process in the images, by its number there
	frozen    time.Time
	log       *slog.Logger
}

// follow copies all memory, until what is written while it does so is little.
func follow(ctx context.Context, c *runtime.Container, o *Options) (_ *follower, err error) {
	f := &follower{container: c, reader: reader.New(nil), spaces: map[int]uint64{}, log: o.log()}
	if err := o.enoughRoom(c); err != nil {
		return nil, err
	}
	if f.draft, err = draft.Open(o.ImagesDir); err != nil {
		return nil, err
	}
	if f.set, err = track.Open(ctx, c.Processes, &track.Options{Freeze: c.Halt, Log: f.log}); err != nil {
		return nil, errors.Join(err, f.draft.Close())
	}
	if f.set.Kind() == track.SoftDirty {
		if err := ClearsSoftDirty(c); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	last, err := f.rounds(ctx)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	f.late.buffer = touched(min(maxLate, max(4*fewEnough, last)))
	return f, nil
}

// rounds copies until the last of them, whose bytes are returned, was small, or not much smaller than the one before.
func (f *follower) rounds(ctx context.Context) (read uint64, err error) {
	before := ^uint64(0)
	for n := range maxRounds {
		began := time.Now()
		if read, err = f.round(ctx); err != nil {
			return 0, err
		}
		f.log.Debug("memory is copied", "container", f.container.ID(), "round", n+1, "bytes", read, "took", time.Since(began))
		if read <= fewEnough || read > before/4*3 {
			break
		}
		before = read
	}
	return read, nil
}

// enoughRoom: the copies become the images piece by piece, so that they take no room twice. An older set keeps its own until this
// one is whole.
func (o *Options) enoughRoom(c *runtime.Container) error {
	need, err := privateMemory(c)
	if err != nil {
		return err
	}
	room, err := hole.Room(o.ImagesDir)
	if err != nil {
		return err
	}
	const more = 16 // a sixteenth, for what is not private, and for what comes meanwhile
	dir := o.ImagesDir
	if o.stage != nil {
		dir = o.stage.Target
	}
	need += need / more
	switch {
	case need <= room:
		return nil
	case o.replaces:
		return fmt.Errorf("%w: it takes %d MiB, and %s has %d MiB free beside the older checkpoint, which is kept until the new one is whole: "+
			"remove that, or use another --image-path", ErrNoRoom, need>>20, dir, room>>20)
	}
	return fmt.Errorf("%w: it takes %d MiB, and %s has %d MiB free", ErrNoRoom, need>>20, dir, room>>20)
}

// touched is memory that is there already: while the container stands there is no time for page faults.
func touched(bytes uint64) []byte {
	buffer := make([]byte, bytes)
	for i := 0; i < len(buffer); i += memory.PageSize {
		buffer[i] = 1
	}
	return buffer
}

// round copies what was written since the round before. What can't be tracked is left to the end.
func (f *follower) round(ctx context.Context) (read uint64, err error) {
	changes, err := f.set.Round(ctx)
	if err != nil {
		return 0, err
	}
	if err := f.forget(changes); err != nil {
		return 0, err
	}
	for _, c := range changes {
		if !c.New {
			if err := f.draft.Keep(c.Space, c.Populated); err != nil {
				return 0, err
			}
		}
		dirty := without(c.Dirty, c.Untracked)
		err := f.reader.Read(ctx, c.Pid, dirty, func(b reader.Block) error {
			f.draft.Gone(c.Space, b.Gone)
			return f.draft.Put(c.Space, b.Ranges, b.Data)
		})
		if err != nil && !errors.Is(err, reader.ErrTaskGone) {
			return 0, err
		}
		for _, r := range dirty {
			read += r.Bytes()
		}
	}
	return read, nil
}

// forget drops the copies of address spaces that are gone.
func (f *follower) forget(changes []track.Change) error {
	return f.draft.KeepSpaces(func(space uint64) bool {
		return slices.ContainsFunc(changes, func(c track.Change) bool { return c.Space == space })
	})
}

// look is the last one at what was written since the last round.
type look struct {
	changes []track.Change
	err     error
}

// look begins to look, when the container has just been frozen: CRIU leaves a processor to it. What CRIU then does to the
// processes' memory it undoes before it is read. Where CRIU uses the kernel's soft-dirty bits it is about to clear them:
// it has to wait.
func (f *follower) look(ctx context.Context) {
	final := make(chan look, 1)
	f.final = final
	find := func() {
		changes, err := f.set.Final(ctx)
		final <- look{changes, err}
	}
	if f.set.Kind() == track.SoftDirty {
		find()
		return
	}
	go find()
}

// unknown is set in the numbers of address spaces that were not followed: no tracker's has it.
const unknown = 1 << 63

// last copies what is left of the processes' memory by CRIU and has no true copy. The container stands.
func (f *follower) last(ctx context.Context, left []Left) error {
	final := <-f.final
	if final.err != nil {
		return final.err
	}
	for _, l := range left {
		i := slices.IndexFunc(final.changes, func(c track.Change) bool { return c.Pid == l.Pid })
		space, read := unknown|uint64(l.Pid), l.Pages
		if i >= 0 && !final.changes[i].New {
			space = final.changes[i].Space
			f.draft.Gone(space, final.changes[i].Dirty)
			read = f.draft.Missing(space, l.Pages)
		}
		f.spaces[l.VPid] = space
		if len(read) == 0 {
			continue
		}
		err := f.reader.Read(ctx, l.Pid, read, func(b reader.Block) error {
			if len(b.Gone) > 0 {
				return fmt.Errorf("%w: process %d, %d pages at %#x", errUnread, l.VPid, b.Gone[0].Pages, b.Gone[0].Start)
			}
			if f.late.keep(space, b.Ranges, b.Data) {
				return nil
			}
			return f.draft.Put(space, b.Ranges, b.Data)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// write brings what is kept in memory to the other copies, when the container runs on.
func (f *follower) write() error {
	for _, p := range f.late.pieces {
		if err := f.draft.Put(p.space, p.ranges, p.data); err != nil {
			return err
		}
	}
	f.late = late{}
	return nil
}

// open is a process's memory for the images.
func (f *follower) open(vpid int) (image.Memory, error) { return f.draft.Reader(f.spaces[vpid]), nil }

func (f *follower) close() error { return errors.Join(f.set.Close(), f.draft.Close()) }

// late is what was read while the container stood.
type late struct {
	buffer []byte // touched before

	mu     sync.Mutex
	used   int
	pieces []piece
}

type piece struct {
	space  uint64
	ranges []memory.Range
	data   []byte
}

// keep copies pages, if there is room.
func (l *late) keep(space uint64, ranges []memory.Range, data []byte) bool {
	l.mu.Lock()
	if l.used+len(data) > len(l.buffer) {
		l.mu.Unlock()
		return false
	}
	to := l.buffer[l.used : l.used+len(data)]
	l.used += len(data)
	l.pieces = append(l.pieces, piece{space, slices.Clone(ranges), to})
	l.mu.Unlock()
	copy(to, data)
	return true
}

// without takes the ranges of b, each of which lies in ranges of a, out of a. Both are in order.
func without(a, b []memory.Range) []memory.Range {
	var rest []memory.Range
	for _, r := range a {
		at := r.Start
		for len(b) > 0 && b[0].Start < r.End() {
			if b[0].Start > at {
				rest = append(rest, memory.Range{Start: at, Pages: (b[0].Start - at) / memory.PageSize})
			}
			at = max(at, b[0].End())
			if b[0].End() > r.End() {
				break // its rest is in the next range
			}
			b = b[1:]
		}
		if at < r.End() {
			rest = append(rest, memory.Range{Start: at, Pages: (r.End() - at) / memory.PageSize})
		}
	}
	return rest
}
