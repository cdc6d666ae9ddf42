package hole

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Piece is the unit in which a file that Pieces made is to grow.
const Piece = 256 << 10

// Pieces makes a file that lies in memory, as Memory does. whole: the kernel takes memory for as much as is appended at once (Linux
// 6.14, with CAP_SYS_ADMIN). Then a Piece that is written where the file ends, at a multiple of it, takes a fifth of the time
// that its pages would take one by one. What is written before the end to a place with nothing in it takes longer, and more memory: the
// kernel takes, and clears, up to 2 MiB around it.
func Pieces(name string) (file *os.File, whole bool, err error) {
	if file, err := inPieces(name); err == nil {
		return file, true, nil
	}
	file, err = Memory(name)
	return file, false, err
}

var errSinglePages = errors.New("the kernel takes memory for files by the page")

// inPieces makes the file on a tmpfs of its own, which nobody sees and which ends with the file.
func inPieces(name string) (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen tmpfs", err)
	}
	defer unix.Close(fs)
	for _, option := range [][2]string{{"huge", "within_size"}, {"size", "0"}, {"mode", "0700"}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return nil, os.NewSyscallError("fsconfig "+option[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, os.NewSyscallError("fsconfig create", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, os.NewSyscallError("open nameless file", err)
	}
	file := os.NewFile(uintptr(fd), "memory:"+name)
	if err := tryPiece(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// tryPiece writes one, and asks the kernel whether it took it as one.
func tryPiece(file *os.File) error {
	before, err := piecesTaken()
	if err != nil {
		return err
	}
	if _, err := file.WriteAt(make([]byte, Piece), 0); err != nil {
		return err
	}
	after, err := piecesTaken()
	if err == nil && after == before {
		err = errSinglePages
	}
	return errors.Join(err, file.Truncate(0))
}

// piecesTaken is how many pieces were taken for files in memory since the machine started.
func piecesTaken() (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/sys/kernel/mm/transparent_hugepage/hugepages-%dkB/stats/shmem_alloc", Piece>>10))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}
