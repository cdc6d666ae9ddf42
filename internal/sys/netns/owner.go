package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoOwner: the file is no socket, or the kernel does not tell (before 4.9).
var ErrNoOwner = errors.New("the file is of no network namespace that the kernel tells of")

// InodeOfProcess is the Inode of the namespace that a process is in.
func InodeOfProcess(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// InodeOfSocket is the Inode of the namespace that a socket was made in, by a descriptor of the socket. It needs CAP_NET_ADMIN there.
func InodeOfSocket(socket int) (uint64, error) {
	fd, err := unix.IoctlRetInt(socket, unix.SIOCGSKNS)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoOwner, os.NewSyscallError("ioctl SIOCGSKNS", err))
	}
	ns := os.NewFile(uintptr(fd), "socket's network namespace")
	inode, err := Inode(ns)
	return inode, errors.Join(err, ns.Close())
}
