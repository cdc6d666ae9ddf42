// Package scratch makes directories in memory that are at no path: when the last descriptor of one is closed, also because its
// holders were killed, all of it is gone.
package scratch

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Dir is such a directory. It is a tmpfs of its own, mounted nowhere.
type Dir struct {
	file *os.File
}

// New makes one that can hold about so many bytes, open to the owner only. It needs Linux 5.2 and CAP_SYS_ADMIN. The caller closes
// it.
func New(bytes int64) (*Dir, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make directory in memory: %w", os.NewSyscallError("fsopen", err))
	}
	defer unix.Close(fs)
	const more = 16 << 20 // for what the file system itself takes
	for key, value := range map[string]string{"size": strconv.FormatInt(bytes+bytes/64+more, 10), "mode": "0700", "nr_inodes": "0"} {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return nil, fmt.Errorf("make directory in memory: %w", os.NewSyscallError("fsconfig "+key, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fmt.Errorf("make directory in memory: %w", os.NewSyscallError("fsconfig", err))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make directory in memory: %w", os.NewSyscallError("fsmount", err))
	}
	return &Dir{file: os.NewFile(uintptr(fd), "directory in memory")}, nil
}

// Path leads to it, in this process only and until Close.
func (d *Dir) Path() string { return "/proc/self/fd/" + strconv.Itoa(int(d.file.Fd())) }

// Close lets go of it. What others have opened in it they keep.
func (d *Dir) Close() error { return d.file.Close() }

// Free is how much memory the host can still give away, in bytes, swap included.
func Free() (uint64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("ask for free memory: %w", err)
	}
	return parseFree(string(text))
}

var errMeminfo = errors.New("/proc/meminfo does not say what is available")
