// Package console makes a container's terminal: the pty is made inside, on the container's own devpts, and its master
// is handed to whoever asked for it.
package console

import (
	"errors"
	"fmt"
	"os"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Setup makes the terminal of the calling process, which must lead a session without one: it becomes descriptors 0, 1
// and 2, and its master is sent over socket, which is closed. bind puts it on /dev/console; nil leaves that.
func Setup(socket *os.File, size *specs.Box, bind func(slave *os.File) error) error {
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
	if bind != nil {
		if err := bind(slave); err != nil {
			return fmt.Errorf("mount /dev/console: %w", err)
		}
	}
	if err := SendFile(socket, "/dev/ptmx", master); err != nil {
		return fmt.Errorf("send console: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(int(slave.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return os.NewSyscallError("ioctl(TIOCSCTTY)", unix.IoctlSetInt(0, unix.TIOCSCTTY, 0))
}

// open allocates a pty. The ptmx must be the one of a devpts: an image could bring any device under that name, and to open
// some of them is an act. The slave is taken from the master by ioctl (Linux 4.13), not by its path (CVE-2025-52565).
func open() (master, slave *os.File, err error) {
	const path = "/dev/pts/ptmx"
	handle, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer handle.Close()
	var fs unix.Statfs_t
	var st unix.Stat_t
	err = errors.Join(unix.Fstatfs(int(handle.Fd()), &fs), unix.Fstat(int(handle.Fd()), &st))
	if err != nil || fs.Type != unix.DEVPTS_SUPER_MAGIC || st.Rdev != unix.Mkdev(5, 2) {
		return nil, nil, errors.Join(errors.New(path+" is not the one of a devpts"), err)
	}
	if master, err = pathrs.Reopen(handle, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
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

// SendFile passes a descriptor over a connected unix socket with its name as the message, as engines expect it.
func SendFile(socket *os.File, name string, file *os.File) error {
	return unix.Sendmsg(int(socket.Fd()), []byte(name), unix.UnixRights(int(file.Fd())), nil, unix.MSG_NOSIGNAL)
}
