// Package descriptor passes open files to other programs: through an exec, or over a unix socket.
package descriptor

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Inherit lets an exec keep the file open under the number that it returns.
func Inherit(f *os.File) (int, error) {
	fd := int(f.Fd())
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return -1, fmt.Errorf("let %s be inherited: %w", f.Name(), err)
	}
	return fd, nil
}

// Withhold undoes Inherit, and takes a descriptor that was inherited: later children do not get it.
func Withhold(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return fmt.Errorf("withhold descriptor %d: %w", fd, err)
	}
	return nil
}

// WithholdFrom is Withhold for every descriptor from first on (Linux 5.11). What a program opens itself no child gets by accident
// in Go; this is for what its caller has left open.
func WithholdFrom(first int) error {
	if err := unix.CloseRange(uint(first), ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("withhold descriptors from %d on: %w", first, err)
	}
	return nil
}

// Pollable is an inherited descriptor as a file whose reads wait in Go's poller and not in a thread. The file owns fd.
func Pollable(fd int, name string) (*os.File, error) {
	if err := Withhold(fd); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("poll descriptor %d: %w", fd, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Block puts f in blocking mode, as programs expect of the descriptors they get. This process leaves it alone from then on.
func Block(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("make %s block: %w", f.Name(), err)
	}
	var modeErr error
	err = raw.Control(func(fd uintptr) { modeErr = unix.SetNonblock(int(fd), false) })
	if err = errors.Join(err, modeErr); err != nil {
		return fmt.Errorf("make %s block: %w", f.Name(), err)
	}
	return nil
}

// Receive takes the one descriptor that the next message on conn carries (SCM_RIGHTS), and the text sent along with it.
// The file is in non-blocking mode, for whoever has it open.
func Receive(conn *net.UnixConn) (_ *os.File, text string, err error) {
	bytes := make([]byte, 4096)
	rights := make([]byte, unix.CmsgSpace(16*4))
	n, control, flags, _, err := conn.ReadMsgUnix(bytes, rights) // close-on-exec: package net asks for it
	if err != nil {
		return nil, "", fmt.Errorf("receive descriptor: %w", err)
	}
	fds, err := parseRights(rights[:control])
	if len(fds) != 1 || flags&unix.MSG_CTRUNC != 0 {
		err = errors.Join(err, fmt.Errorf("the message carries %d descriptors, not one", len(fds)))
	}
	if err == nil {
		err = unix.SetNonblock(fds[0], true)
	}
	if err != nil {
		for _, fd := range fds {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, "", fmt.Errorf("receive descriptor: %w", err)
	}
	text = string(bytes[:n])
	return os.NewFile(uintptr(fds[0]), text), text, nil
}

func parseRights(control []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if messages[i].Header.Level != unix.SOL_SOCKET || messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// Send passes f over conn, with a text of at least one byte along: a stream carries no message without any.
func Send(conn *net.UnixConn, f *os.File, text string) error {
	_, _, err := conn.WriteMsgUnix([]byte(text), unix.UnixRights(int(f.Fd())), nil)
	if err != nil {
		return fmt.Errorf("send %s: %w", f.Name(), err)
	}
	return nil
}
