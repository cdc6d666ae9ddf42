package track

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
)

var (
	// ErrKind: the kernel does not have the kind that was asked for, or this process may not use it. Ask Probe.
	ErrKind = errors.New("memory cannot be tracked in this way")
	// ErrNoFreeze: soft-dirty bits are cleared without a loss only while nobody writes. Give Options.Freeze.
	ErrNoFreeze = errors.New("tracking by soft-dirty bits needs a way to freeze the tasks")
	// ErrClosed: the set was closed.
	ErrClosed = errors.New("set of tracked memory is closed")
)

// Options of a Set; nil is all of the zero values.
type Options struct {
	Kind Kind // how to track; empty is the best that Probe finds
	// Freeze stops all tasks of the set and returns what lets them go on: SoftDirty calls it for some milliseconds in
	// each Round. The others do not need it.
	Freeze func(ctx context.Context) (thaw func() error, err error)
	Log    *slog.Logger // nil discards
}

// Change is what a Round or a Final has to tell of one address space. All ranges are of private anonymous memory, in
// ascending order, and do not overlap.
type Change struct {
	Pid       int    // a process that has this address space, as this pid namespace calls it
	VPid      int    // the same as its own, innermost, pid namespace calls it: the number in CRIU's images
	StartTime uint64 // in clock ticks since boot: with Pid it names the process for ever
	Space     uint64 // names the address space while it lives: threads and vfork share it, fork and exec make a new one
	New       bool   // the first time that this address space is told of: what was known under an older one is void

	// Populated is what holds anything: whatever is not in it reads as zeros, or is not mapped.
	Populated []memory.Range
	// Dirty, within Populated, is what has to be read, again if it was before. Everything else in Populated is as it was
	// when it was last in Dirty.
	Dirty []memory.Range
	// Untracked, within Dirty, is what is not tracked, so that it is in Dirty every time, changed or not; Reason says why.
	Untracked []memory.Range
	Reason    error
}

// Set tracks the memory of a set of processes. Its methods exclude each other.
type Set struct {
	pids   func() ([]int, error)
	kind   Kind
	freeze func(ctx context.Context) (thaw func() error, err error)
	log    *slog.Logger
	pages  *lister

	mu     sync.Mutex
	closed bool
	spaces map[uint64]*space
	owners map[key]*space // by their processes
	last   uint64         // the id given last
}

// Open starts to track the processes that pids lists, as this pid namespace numbers them: those of a cgroup, say. It is
// asked in every Round and in Final. Nothing is done to any process yet. Whoever opened the set closes it.
//
// ErrKind when Options.Kind is not to be had here, ErrNoFreeze.
func Open(ctx context.Context, pids func() ([]int, error), options *Options) (*Set, error) {
	if options == nil {
		options = &Options{}
	}
	s := &Set{
		pids: pids, kind: options.Kind, freeze: options.Freeze, log: options.Log,
		pages: newLister(), spaces: map[uint64]*space{}, owners: map[key]*space{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.kind == "" {
		var err error
		if s.kind, err = Probe(ctx); err != nil {
			return nil, err
		}
		if s.kind == SoftDirty && s.freeze == nil {
			s.kind = None
		}
	} else if err := s.kind.have(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKind, s.kind, err)
	}
	if s.kind == SoftDirty && s.freeze == nil {
		return nil, ErrNoFreeze
	}
	return s, nil
}

// Kind is how the set tracks. Single processes may go without: see Change.Untracked.
func (s *Set) Kind() Kind { return s.kind }

// Round tells what changed since the Round before, while the processes run: read Dirty after it returned. What is written
// while it works is told of now or in the next one. The processes' cgroup must not be frozen by others meanwhile.
//
// After an error everything is told of anew next time; nothing of the failed round needs to be known.
func (s *Set) Round(ctx context.Context) ([]Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.kind != SoftDirty {
		return s.look(ctx, true)
	}
	thaw, err := s.freeze(ctx)
	if err != nil {
		return nil, fmt.Errorf("freeze: %w", err)
	}
	changes, err := s.look(ctx, true)
	if thawErr := thaw(); thawErr != nil {
		s.forget()
		return nil, errors.Join(err, fmt.Errorf("thaw: %w", thawErr))
	}
	return changes, err
}

// Final tells what changed since the last Round, while no process of the set runs: frozen, or stopped by a tracer. It does
// nothing to them, and makes nothing clean: it can be repeated, and when they are let go on, Round follows as if there had
// been none.
func (s *Set) Final(ctx context.Context) ([]Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	return s.look(ctx, false)
}

// Forget makes everything dirty: for who lost what was read, or begins with another peer.
func (s *Set) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

func (s *Set) forget() {
	for _, sp := range s.spaces {
		sp.lost = true
	}
}

// Close lets all processes be as they were before the set was opened.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for id, sp := range s.spaces {
		errs = append(errs, sp.close())
		delete(s.spaces, id)
	}
	s.closed = true
	return errors.Join(errs...)
}

// look goes through the address spaces; arm is false in Final.
func (s *Set) look(ctx context.Context, arm bool) (changes []Change, err error) {
	tasks, err := s.tasks()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.forget()
		}
	}()
	living := map[uint64]bool{}
	for _, members := range bySpace(tasks) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sp := s.find(members, living)
		living[sp.id] = true
		change, err := s.lookAt(ctx, sp, arm)
		if errors.Is(err, pagemap.ErrNoMemory) || errors.Is(err, os.ErrProcessDone) {
			sp.lost = true // it ended, or is about to exec: its memory is nobody's any more
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("process %d: %w", sp.task().pid, err)
		}
		changes = append(changes, *change)
	}
	s.drop(living)
	return changes, nil
}

// drop lets go what no process has any more.
func (s *Set) drop(living map[uint64]bool) {
	for id, sp := range s.spaces {
		if living[id] {
			continue
		}
		if err := sp.close(); err != nil {
			s.log.Warn("an address space that ended was not let go", "pid", sp.task().pid, "err", err)
		}
		delete(s.spaces, id)
	}
	for k, sp := range s.owners {
		if !living[sp.id] || !slices.ContainsFunc(sp.members, func(t task) bool { return t.key() == k }) {
			delete(s.owners, k)
		}
	}
}

// lookAt looks at one address space.
func (s *Set) lookAt(ctx context.Context, sp *space, arm bool) (*Change, error) {
	t := sp.task()
	m, err := s.pages.open(t.pid)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if arm {
		s.takeHold(ctx, sp, m)
	}
	areas, err := readAreas(t)
	if err != nil {
		return nil, err
	}
	pinned := t.pinned
	if arm && s.kind == WriteProtect && !sp.pinned {
		sp.pinned = pinned || hasDirect(t.pid)
	}
	found, err := sp.watch.look(s.pages, m, areas, arm)
	if err != nil {
		return nil, err
	}
	change := &Change{
		Pid: t.pid, VPid: t.vpid, StartTime: t.start, Space: sp.id, New: !sp.told,
		Populated: found.populated, Dirty: found.dirty, Untracked: found.untracked, Reason: sp.reason,
	}
	if sp.lost {
		change.Dirty = found.populated
	}
	switch {
	case s.kind == WriteProtect && (sp.pinned || pinned) && !arm:
		// What a device writes, no page table sees.
		change.Dirty, change.Untracked, change.Reason = found.populated, found.populated, ErrPinned
	case found.reason != nil:
		change.Reason = found.reason
	}
	s.log.Debug("memory looked at", "pid", t.pid, "space", sp.id, "new", change.New, "anew", sp.lost, "populated", pages(change.Populated),
		"dirty", pages(change.Dirty), "untracked", pages(change.Untracked), "reason", change.Reason)
	if arm {
		sp.lost = false
	}
	sp.told = true
	return change, nil
}

// pages counts.
func pages(ranges []memory.Range) (n uint64) {
	for _, r := range ranges {
		n += r.Pages
	}
	return n
}
