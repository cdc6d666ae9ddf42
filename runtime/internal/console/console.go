// Package console makes a container's terminal: the pty is made inside, on the container's own devpts, and its master
// is handed to whoever asked for it.
package console

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Setup makes the terminal of the calling process, which must lead a session without one: it becomes descriptors 0, 1
// and 2, and its master is sent over socket, which is closed. bindConsole also puts it on /dev/console.
func Setup(socket *os.File, size *specs.Box, bindConsole bool) error {
	defer socket.Close()
	master, slave, err := open()
	if err != nil {
		return fmt.Errorf("make pty: %w", err)
	}
	defer master.Close()
	defer slave.Close()
	if size != nil && size.Height != 0 && size.Width != 0 {
		ws := &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)}
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, ws); err != nil {
			return fmt.Errorf("set console size: %w", err)
		}
	}
	if bindConsole {
		if err := bind(slave); err != nil {
			return fmt.Errorf("mount /dev/console: %w", err)
		}
	}
	if err := SendFile(socket, master.Name(), master); err != nil {
		return fmt.Errorf("send console: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(int(slave.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return os.NewSyscallError("ioctl(TIOCSCTTY)", unix.IoctlSetInt(0, unix.TIOCSCTTY, 0))
}

// open allocates a pty. The ptmx must be the one of a devpts: an image could bring any device under that name. The
// slave is taken from the master by ioctl (Linux 4.13), not by its path.
func open() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/pts/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return nil, nil, errors.Join(errors.New("/dev/pts/ptmx is not on a devpts"), err, master.Close())
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("ioctl(TIOCSPTLCK)", err), master.Close())
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER,
		unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, nil, errors.Join(os.NewSyscallError("ioctl(TIOCGPTPEER)", errno), master.Close())
	}
	return master, os.NewFile(peer, "pty"), nil
}

func bind(slave *os.File) error {
	fd, err := unix.Open("/dev/console", unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	mnt, err := unix.OpenTree(int(slave.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(mnt)
	return os.NewSyscallError("move_mount",
		unix.MoveMount(mnt, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// SendFile passes a descriptor over a connected unix socket with its name as the message, as engines expect it.
func SendFile(socket *os.File, name string, file *os.File) error {
	return unix.Sendmsg(int(socket.Fd()), []byte(name), unix.UnixRights(int(file.Fd())), nil, unix.MSG_NOSIGNAL)
}
