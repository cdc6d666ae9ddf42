// Package pipe looks into pipes that other processes hold, and takes from them what nobody has read.
package pipe

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Waiting is what a pipe holds that nobody has read.
type Waiting struct {
	Data  []byte
	Ended bool // no process can write to it any more: a reader of it gets the end of the file after Data
}

// Peek copies what waits in the pipe that path leads to, as /proc/PID/fd/N does; all of it stays there. It needs the right
// to open that path for reading, which makes a reader of the pipe for a moment.
func Peek(path string) (*Waiting, error) {
	w, err := peek(path)
	if err != nil {
		return nil, fmt.Errorf("look into pipe: %w", err)
	}
	return w, nil
}

func peek(path string) (*Waiting, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_GETPIPE_SZ", err)
	}
	// tee shares the pages of one pipe with another, which has to have room for as many.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	defer write.Close()
	if err := grow(write, size); err != nil {
		return nil, err
	}
	n, err := unix.Tee(fd, int(write.Fd()), size, unix.SPLICE_F_NONBLOCK)
	if errors.Is(err, unix.EAGAIN) {
		return &Waiting{}, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("tee", err)
	}
	w := &Waiting{Data: make([]byte, n), Ended: n == 0}
	if n > 0 {
		w.Ended = alone(fd)
	}
	_, err = io.ReadFull(read, w.Data)
	return w, err
}

// alone tells whether the pipe has no writer.
func alone(fd int) bool {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(set, 0)
	return err == nil && n > 0 && set[0].Revents&unix.POLLHUP != 0
}

// Length is how many bytes wait in the pipe that path leads to.
func Length(path string) (int, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return 0, fmt.Errorf("look into pipe: %w", err)
	}
	defer unix.Close(fd)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0, fmt.Errorf("look into pipe: %w", os.NewSyscallError("ioctl FIONREAD", err))
	}
	return n, nil
}

// Take reads what waits in the pipe that path leads to: no other reader gets that any more. It is one read, so that a process that is
// killed has taken all or nothing. It returns what it has also with an error.
func Take(path string) (data []byte, err error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("take from pipe: %w", err)
	}
	defer unix.Close(fd)
	size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return nil, fmt.Errorf("take from pipe: %w", os.NewSyscallError("fcntl F_GETPIPE_SZ", err))
	}
	for buffer := make([]byte, size); ; {
		n, err := unix.Read(fd, buffer)
		switch {
		case n > 0:
			data = append(data, buffer[:n]...)
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), err == nil:
			return data, nil
		default:
			return data, fmt.Errorf("take from pipe: %w", os.NewSyscallError("read", err))
		}
	}
}

// Return undoes Take while nobody has written since. What the pipe has no room for is lost, and an error says how much.
func Return(path string, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	fd, err := open(path, unix.O_RDWR) // for writing alone it takes a reader
	if err != nil {
		return fmt.Errorf("return to pipe: %w", err)
	}
	defer unix.Close(fd)
	for left := data; ; {
		n, err := unix.Write(fd, left)
		if n > 0 {
			left = left[n:]
		}
		switch {
		case len(left) == 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("return to pipe: %d of %d bytes: %w", len(data)-len(left), len(data), os.NewSyscallError("write", err))
		}
	}
}

// Put writes data into a pipe that nobody reads yet, whose write end is given. The pipe is made large enough.
func Put(write *os.File, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	// Twice: what is there already may end in a page that is not full.
	if err := grow(write, 2*len(data)); err != nil {
		return fmt.Errorf("fill pipe: %w", err)
	}
	if _, err := write.Write(data); err != nil {
		return fmt.Errorf("fill pipe: %w", err)
	}
	return nil
}

// grow leaves a pipe alone that is large enough.
func grow(file *os.File, size int) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var growErr error
	err = raw.Control(func(fd uintptr) {
		has, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
		if err == nil && has < size {
			_, err = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size)
		}
		growErr = os.NewSyscallError("fcntl F_SETPIPE_SZ", err)
	})
	return errors.Join(err, growErr)
}

// open does not wait for another end. The path must be a pipe's.
func open(path string, flags int) (int, error) {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}
