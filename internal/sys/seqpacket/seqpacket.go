// Package seqpacket is a pair of connected SOCK_SEQPACKET sockets, one end of which a child process gets: messages keep
// their boundaries, may be of any size, and may carry descriptors.
package seqpacket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxDescriptors bounds what one message may carry. The kernel's own limit is SCM_MAX_FD, 253.
const maxDescriptors = 16

// Conn is this process's end. One reader and one writer at a time.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
}

// Pair returns our end and the child's. The child's end blocks, as programs expect of a descriptor they inherit; close it
// once the child has started, or the end of the child is never noticed.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := fds[0], os.NewFile(uintptr(fds[1]), "seqpacket-peer")
	// Non-blocking before os.NewFile looks: only then the Go poller watches it and deadlines work.
	if err := unix.SetNonblock(ours, true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make socket pair: %w", err), unix.Close(ours), theirs.Close())
	}
	file := os.NewFile(uintptr(ours), "seqpacket")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make socket pair: %w", err), file.Close(), theirs.Close())
	}
	return &Conn{file: file, raw: raw}, theirs, nil
}

// Send writes one message.
func (c *Conn) Send(ctx context.Context, message []byte) error {
	var sendErr error
	err := c.during(ctx, c.file.SetWriteDeadline, func() error {
		return c.raw.Write(func(fd uintptr) bool {
			sendErr = unix.Sendmsg(int(fd), message, nil, nil, unix.MSG_NOSIGNAL)
			return !errors.Is(sendErr, unix.EAGAIN) && !errors.Is(sendErr, unix.EINTR)
		})
	})
	if err := errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Recv returns the next message and the descriptors it carried, close-on-exec, which the caller closes. io.EOF means that
// every holder of the other end is gone.
func (c *Conn) Recv(ctx context.Context) ([]byte, []*os.File, error) {
	var (
		message []byte
		files   []*os.File
		recvErr error
	)
	err := c.during(ctx, c.file.SetReadDeadline, func() error {
		return c.raw.Read(func(fd uintptr) bool {
			message, files, recvErr = receive(int(fd))
			return !errors.Is(recvErr, unix.EAGAIN) && !errors.Is(recvErr, unix.EINTR)
		})
	})
	switch err := errors.Join(err, recvErr); {
	case err == nil:
		return message, files, nil
	case errors.Is(err, io.EOF):
		return nil, nil, io.EOF
	default:
		return nil, nil, fmt.Errorf("receive message: %w", err)
	}
}

// Close ends the connection: the child reads an end of file.
func (c *Conn) Close() error {
	return c.file.Close()
}

// during runs a call that ctx interrupts.
func (c *Conn) during(ctx context.Context, deadline func(time.Time) error, call func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = deadline(time.Unix(1, 0))
		close(interrupted)
	})
	err := call()
	if !stop() {
		<-interrupted // else it could set the deadline after it is taken back, and end a later call
		_ = deadline(time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// receive takes one message whole: a peek tells its size, so that no fixed buffer can cut it.
func receive(fd int) ([]byte, []*os.File, error) {
	size, _, _, _, err := unix.Recvmsg(fd, nil, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
	if err != nil {
		return nil, nil, err
	}
	if size == 0 {
		return nil, nil, io.EOF
	}
	message, control := make([]byte, size), make([]byte, unix.CmsgSpace(maxDescriptors*4))
	n, oobn, flags, _, err := unix.Recvmsg(fd, message, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	files, err := descriptors(control[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("message of %d bytes was cut", size)
	}
	if err != nil {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		return nil, nil, err
	}
	return message[:n], files, nil
}

func descriptors(control []byte) ([]*os.File, error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
