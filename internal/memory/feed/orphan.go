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
	feeders []int // at work still, or about to be
	holders []int
}

// findOrphan looks among all processes for those that have the lock. ErrLost when no holder is left.
func findOrphan(lock *os.File) (*orphan, error) {
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
		err := o.findUsers(pids)
		if err != nil {
			o.close()
		}
		return o, err
	}
	return nil, fmt.Errorf("%w: nobody holds the container's memory", ErrLost)
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
		info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, journalFD))
		switch {
		case err != nil || !os.SameFile(info, journal):
		case isHolder(pid):
			o.holders = append(o.holders, pid)
		default:
			o.feeders = append(o.feeders, pid)
		}
	}
	return nil
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
	for _, pid := range o.feeders {
		if err := end(ctx, pid); err != nil {
			return fmt.Errorf("end the feeder that nobody watches: %w", err)
		}
	}
	return nil
}

func end(ctx context.Context, pid int) error {
	victim, err := pidfd.Open(pid)
	if err == nil {
		defer victim.Close()
		err = pidfd.Signal(victim, syscall.SIGKILL)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	return pidfd.Wait(ctx, victim)
}

// settle finds, when no feeder is left, the holder that counts: the one of the last generation that came to work. It ends
// others, which a feeder has left that came to nothing.
func (o *orphan) settle(ctx context.Context, head *head) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	generation := int(atomic.LoadUint32(&head.generation))
	pid := int(atomic.LoadUint32(head.bank(generation)))
	if !slices.Contains(o.holders, pid) {
		return fmt.Errorf("%w: its holder is gone", ErrLost)
	}
	if pid != o.pid {
		o.holder.Close()
		o.pid = pid
		var err error
		if o.holder, err = pidfd.Open(pid); err != nil {
			return fmt.Errorf("%w: its holder is gone: %w", ErrLost, err)
		}
	}
	for _, other := range o.holders {
		if other == pid {
			continue
		}
		if err := end(ctx, other); err != nil {
			return fmt.Errorf("end a holder: %w", err)
		}
	}
	atomic.StoreUint32(head.bank(generation+1), 0)
	return nil
}

func (o *orphan) close() {
	for _, f := range []*os.File{o.holder, o.journal} {
		if f != nil {
			f.Close()
		}
	}
}
