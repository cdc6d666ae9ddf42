package feed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// orphan is what is left of a feeding whose supervisor is gone: a holder, which has everything that a feeder had.
type orphan struct {
	holder  *os.File // by pidfd
	pid     int
	journal *os.File
	feeders []user // at work still, or about to be
	holders []user
}

// user is a process that has the journal, by pidfd: its number may be another's soon.
type user struct {
	process *os.File
	pid     int
}

// looks is how often a holder is looked for: one may end while the list of processes is gone through, and its successor not be in it.
const looks = 3

// findOrphan looks among all processes for those that have the lock. When no holder is left it is ErrFed if a feeder has come to
// its end meanwhile, else ErrLost.
func findOrphan(lock *os.File) (*orphan, error) {
	for range looks {
		o, err := lookForOrphan(lock)
		if o != nil || err != nil {
			return o, err
		}
		if checkMark(lock) == nil {
			return nil, ErrFed
		}
	}
	return nil, fmt.Errorf("%w: nobody holds the container's memory", ErrLost)
}

// lookForOrphan returns nil when there is no holder among the processes.
func lookForOrphan(lock *os.File) (*orphan, error) {
	ours, err := lock.Stat()
	if err != nil {
		return nil, err
	}
	pids, err := allPids()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if !isHolder(pid) || !hasOpen(pid, ours) {
			continue
		}
		o := &orphan{pid: pid}
		if err := o.open(); err != nil {
			o.close()
			if errors.Is(err, os.ErrProcessDone) {
				continue
			}
			return nil, err
		}
		if err := o.findUsers(pids); err != nil {
			o.close()
			return nil, err
		}
		return o, nil
	}
	return nil, nil
}

func allPids() ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func isHolder(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSpace(string(name)) == process.HolderName
}

func hasOpen(pid int, file os.FileInfo) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(dir, name.Name())); err == nil && os.SameFile(info, file) {
			return true
		}
	}
	return false
}

func (o *orphan) open() (err error) {
	if o.holder, err = pidfd.Open(o.pid); err != nil {
		return err
	}
	o.journal, err = pidfd.GetFD(o.holder, journalFD)
	return err
}

// findUsers finds who has the journal where a feeder has it.
func (o *orphan) findUsers(pids []int) error {
	journal, err := o.journal.Stat()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if !hasAt(pid, journalFD, journal) {
			continue
		}
		process, err := pidfd.Open(pid)
		if errors.Is(err, os.ErrProcessDone) {
			continue
		}
		if err != nil {
			return err
		}
		u := user{process, pid}
		switch {
		case !hasAt(pid, journalFD, journal): // it ended, and the number is another's
			process.Close()
		case isHolder(pid):
			o.holders = append(o.holders, u)
		default:
			o.feeders = append(o.feeders, u)
		}
	}
	return nil
}

func hasAt(pid, fd int, file os.FileInfo) bool {
	info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	return err == nil && os.SameFile(info, file)
}

// waits tells whether there are pages to come that only a supervisor takes.
func (o *orphan) waits() (bool, error) {
	order, err := readOrder(fmt.Sprintf("/proc/%d", o.pid))
	if err != nil || !order.Late {
		return false, err
	}
	file, err := pidfd.GetFD(o.holder, order.lateFD())
	if err != nil {
		return false, err
	}
	defer file.Close()
	a, err := openArrivals(file, 0, 0)
	if err != nil || a == nil {
		return false, err
	}
	missing := a.missing()
	return missing > 0, a.close()
}

// endLimit is how long a killed feeder may take: a call into the kernel may be under way.
const endLimit = 10 * time.Second

// endFeeders returns when none is left.
func (o *orphan) endFeeders(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	for _, u := range o.feeders {
		if err := u.end(ctx); err != nil {
			return fmt.Errorf("end the feeder that nobody watches: %w", err)
		}
	}
	return nil
}

func (u user) end(ctx context.Context) error {
	err := pidfd.Signal(u.process, syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	return pidfd.Wait(ctx, u.process)
}

// settle finds, when no feeder is left, the holder that counts: the one of the last generation that came to work. It ends
// others, which a feeder has left that came to nothing.
func (o *orphan) settle(ctx context.Context, head *head) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	generation := int(atomic.LoadUint32(&head.generation))
	if err := o.choose(int(atomic.LoadUint32(head.bank(generation)))); err != nil {
		return fmt.Errorf("%w: its holder is gone: %w", ErrLost, err)
	}
	for _, other := range o.holders {
		if other.pid == o.pid {
			continue
		}
		if err := other.end(ctx); err != nil {
			return fmt.Errorf("end a holder: %w", err)
		}
	}
	atomic.StoreUint32(head.bank(generation+1), 0)
	return nil
}

// choose makes a process that was found the holder, if it has its files still.
func (o *orphan) choose(pid int) error {
	at := slices.IndexFunc(o.holders, func(u user) bool { return u.pid == pid })
	if at < 0 {
		return os.ErrProcessDone
	}
	holder, err := duplicate(o.holders[at].process)
	if err != nil {
		return err
	}
	o.holder.Close()
	o.holder, o.pid = holder, pid
	journal, err := pidfd.GetFD(holder, journalFD)
	if err != nil {
		return err
	}
	return journal.Close()
}

func (o *orphan) close() {
	for _, u := range slices.Concat(o.feeders, o.holders) {
		u.process.Close()
	}
	for _, f := range []*os.File{o.holder, o.journal} {
		if f != nil {
			f.Close()
		}
	}
}
