package track

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/sys/ptrace"
	"github.com/livemigrate/migrate/internal/sys/uffd"
)

// Reasons why memory is not tracked, besides those of internal/sys/ptrace.
var (
	// ErrPinned: a device may write to the process's pages (io_uring's buffers, RDMA, direct input and output).
	ErrPinned = errors.New("pages are pinned for a device")
	// ErrTraced: a debugger traces the process.
	ErrTraced = errors.New("process is traced by another")
	// ErrBusy: every thread of the process is stopped, or waits where no signal reaches it.
	ErrBusy = errors.New("no thread can be stopped")
	// ErrOwnUserfaultfd: the process, or CRIU while it still restores it, has a userfaultfd of its own there.
	ErrOwnUserfaultfd = errors.New("memory has a userfaultfd already")
	// ErrRegister: the kernel does not let the memory be watched.
	ErrRegister = errors.New("memory cannot be watched")
)

// space is an address space that is tracked.
type space struct {
	id      uint64
	members []task // the processes that have it; never empty
	watch   watcher
	reason  error // why watch is everything
	told    bool  // a change of it was returned
	lost    bool  // what is clean is not known: tell of all
	pinned  bool
}

// watcher finds the written pages of one address space.
type watcher interface {
	// look finds them. With arm, what it finds is clean from now on, until it is written again.
	look(l *lister, m *pagemap.Map, a *areas, arm bool) (*finding, error)
	// watches tells whether the page map is of the address space that is watched: after exec it is not.
	watches(m *pagemap.Map) bool
	close() error
}

// finding is what a watcher found.
type finding struct {
	populated, dirty, untracked []memory.Range
	reason                      error // why there is something untracked
}

func (sp *space) task() *task { return &sp.members[0] }

func (sp *space) close() error {
	err := sp.watch.close()
	sp.watch = everything{}
	return err
}

// bySpace groups processes by their address space, which processes share between vfork and exec, and after clone(CLONE_VM).
// In each group the oldest comes first.
func bySpace(tasks []task) [][]task {
	sorted := slices.Clone(tasks)
	same := func(a, b task) bool {
		order, err := process.CompareMemory(a.pid, b.pid)
		return err == nil && order == 0
	}
	slices.SortFunc(sorted, func(a, b task) int {
		order, err := process.CompareMemory(a.pid, b.pid)
		if err != nil {
			return a.pid - b.pid // one has ended, or the kernel cannot say: they count as two
		}
		return order
	})
	var groups [][]task
	for i, t := range sorted {
		if i > 0 && same(sorted[i-1], t) {
			groups[len(groups)-1] = append(groups[len(groups)-1], t)
		} else {
			groups = append(groups, []task{t})
		}
	}
	for _, g := range groups {
		slices.SortFunc(g, func(a, b task) int {
			if a.start != b.start {
				return int(int64(a.start - b.start))
			}
			return a.pid - b.pid
		})
	}
	slices.SortFunc(groups, func(a, b []task) int { return a[0].pid - b[0].pid })
	return groups
}

// find is the space of a group of processes: that which one of them had before and did not leave by exec, unless another
// group has it; or a new one.
func (s *Set) find(members []task, taken map[uint64]bool) *space {
	for _, m := range members {
		sp := s.owners[m.key()]
		if sp != nil && !taken[sp.id] && slices.ContainsFunc(sp.members, func(old task) bool {
			return old.key() == m.key() && old.image == m.image
		}) {
			return s.own(sp, members)
		}
	}
	s.last++
	sp := &space{id: s.last, watch: everything{}, lost: true}
	s.spaces[sp.id] = sp
	return s.own(sp, members)
}

func (s *Set) own(sp *space, members []task) *space {
	sp.members = members
	for i := range members {
		s.owners[members[i].key()] = sp
	}
	return sp
}

// takeHold sees to it that the space is watched as the set's kind says; if it cannot be, everything of it is dirty each time.
func (s *Set) takeHold(ctx context.Context, sp *space, m *pagemap.Map) {
	t := sp.task()
	switch s.kind {
	case None:
	case SoftDirty:
		sp.watch = softDirty{pid: t.pid}
	case WriteProtect:
		if sp.watch.watches(m) {
			return
		}
		if err := sp.close(); err != nil {
			s.log.Warn("an address space that ended was not let go", "pid", t.pid, "err", err)
		}
		sp.lost = true
		fd, err := inject(ctx, t)
		if err != nil {
			if sp.reason == nil || sp.reason.Error() != err.Error() {
				s.log.Info("memory is not tracked", "pid", t.pid, "reason", err)
			}
			sp.reason = err
			return
		}
		sp.watch, sp.reason = &writeProtect{fd: fd}, nil
	}
}

// inject gets a userfaultfd of the process's address space.
func inject(ctx context.Context, t *task) (uffd.FD, error) {
	if t.tracer != 0 {
		return -1, fmt.Errorf("%w: process %d", ErrTraced, t.tracer)
	}
	tids, err := threads(t.pid)
	if err != nil {
		return -1, err
	}
	if len(tids) == 0 {
		return -1, fmt.Errorf("%w: state %c", ErrBusy, t.state)
	}
	const tries = 3
	for i := range tries {
		tid := tids[i%len(tids)]
		var fd uffd.FD
		fd, err = uffd.OpenIn(ctx, t.pid, tid)
		if err == nil {
			if _, err = fd.API(writeProtectFeatures); err == nil {
				return fd, nil
			}
			return -1, errors.Join(err, fd.Close())
		}
		again := errors.Is(err, ptrace.ErrCriticalSection) || errors.Is(err, ptrace.ErrNoStop) || errors.Is(err, os.ErrProcessDone)
		if !again || ctx.Err() != nil {
			break
		}
	}
	return -1, err
}
