// Package hole makes files without a name, and makes holes in them.
package hole

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// Memory makes a file that lies in memory (memfd_create(2)). The name is for /proc/PID/fd alone.
func Memory(name string) (*os.File, error) {
	// Where vm.memfd_noexec is 2 nothing else is allowed; kernels before 6.3 do not know the flag.
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "memfd:"+name), nil
}

// Nameless makes a file in a directory that nobody else can open and that is gone when it is closed: O_TMPFILE, or where the
// file system has none a file that is unlinked at once.
func Nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/nameless"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("make nameless file in %s: %w", dir, err)
	}
	file, err := os.CreateTemp(dir, ".nameless-*")
	if err != nil {
		return nil, fmt.Errorf("make nameless file: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make nameless file: %w", err), file.Close())
	}
	return file, nil
}

// Punch frees what the file has from off on; it reads as zeros from then on.
func Punch(file *os.File, off, bytes int64) error {
	for {
		err := unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, bytes)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Allocated is how many bytes the file takes, holes left out.
func Allocated(file *os.File) (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return 0, err
	}
	return uint64(stat.Blocks) * 512, nil
}

// NoRoom says that an error of writing means a full file system, a used-up quota, or no memory.
func NoRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EFBIG)
}

// Room is how many bytes an ordinary user can still write to the file system of a directory.
func Room(dir string) (uint64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("ask for room in %s: %w", dir, err)
	}
	if stat.Blocks == 0 {
		return math.MaxUint64, nil // it does not say
	}
	return stat.Bavail * uint64(stat.Bsize), nil
}
