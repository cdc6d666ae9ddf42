package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/netns"
)

// tunPath is where TUN devices come from. CRIU saves them in a namespace of the container's only.
const tunPath = "/dev/net/tun"

// sockets are those that are known to be of a network namespace. A socket never goes to another, so that each is asked once: what
// is left for the freeze are the few that are new.
type sockets struct {
	own   uint64          // the namespace
	known map[string]bool // by what /proc/PID/fd says, which has the socket's own number
}

func newSockets(own uint64) *sockets {
	return &sockets{own: own, known: map[string]bool{}}
}

// check: every socket of these processes is of that namespace, and they have no TUN device. What can't be found out is an error
// as well.
func (s *sockets) check(pids []int) error {
	for _, pid := range pids {
		if err := s.checkProcess(pid); err != nil {
			return err
		}
	}
	return nil
}

func (s *sockets) checkProcess(pid int) error {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil && !ended(err) {
		return fmt.Errorf("list open files: %w", err)
	}
	found := map[int]string{}
	for _, e := range list {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case err != nil && ended(err):
			continue
		case err != nil:
			return fmt.Errorf("list open files: %w", err)
		case to == tunPath:
			return fmt.Errorf("%w: process %d has a TUN device", errForeign, pid)
		case !strings.HasPrefix(to, "socket:") || s.known[to]:
			continue
		}
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("list open files: %w", err)
		}
		found[number] = to
	}
	if len(found) == 0 {
		return nil
	}
	return s.ask(pid, found)
}

// ask finds out what namespace the process's sockets are of.
func (s *sockets) ask(pid int, found map[int]string) error {
	process, err := descriptor.OpenRemote(pid)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	for number, socket := range found {
		inode := uint64(0)
		err = process.With(number, func(fd int) (err error) {
			inode, err = netns.InodeOfSocket(fd)
			return err
		})
		switch {
		case ended(err):
			err = nil
			continue
		case err == nil && inode != s.own:
			err = fmt.Errorf("%w: descriptor %d of process %d", errForeign, number, pid)
		}
		if err != nil {
			break
		}
		s.known[socket] = true
	}
	return errors.Join(err, process.Close())
}

// ended tells that the descriptor was closed meanwhile, or its process has ended.
func ended(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.ESRCH)
}
