package descriptor

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Lengths of control bytes, each a multiple of a word.
const (
	RightSize  = 24 // of one descriptor
	SenderSize = 32 // of who has sent a message, with TellSenders
)

// TellSenders has a socket, or those that come of one that listens, say with each message who has sent it (SO_PASSCRED of
// unix(7)). What is received from it needs room for that then.
func TellSenders(socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) { setErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	return errors.Join(err, os.NewSyscallError("setsockopt", setErr))
}

// ReceivePlaced is one recvmsg of a connection that does not wait: the data, and in control (zero before, and long enough)
// the records of a descriptor that came along and of the sender, are written by the kernel to the caller's memory within the
// call. Where that memory is shared, and the table of descriptors too (process.Hold), the descriptor can be found after this
// process was killed at any moment. n is 0 at the end of the stream; unix.EAGAIN when nothing is there yet.
func ReceivePlaced(fd int, data, control []byte) (n int, err error) {
	vec := unix.Iovec{Base: unsafe.SliceData(data)}
	vec.SetLen(len(data))
	header := unix.Msghdr{Iov: &vec}
	header.SetIovlen(1)
	if len(control) > 0 {
		header.Control = unsafe.SliceData(control)
		header.SetControllen(len(control))
	}
	for {
		r, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&header)), unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errno
		default:
			return 0, os.NewSyscallError("recvmsg", errno)
		}
	}
}

// Placed reads the record of a descriptor: its number, if there is one.
func Placed(control []byte) (fd int, ok bool) {
	body := record(control, unix.SCM_RIGHTS)
	if len(body) < 4 {
		return 0, false
	}
	return int(int32(binary.NativeEndian.Uint32(body))), true
}

// Sender reads the record of who has sent a message: the process, as this process's pid namespace calls it, if there is one and
// it has a number there.
func Sender(control []byte) (pid int, ok bool) {
	body := record(control, unix.SCM_CREDENTIALS)
	if len(body) < unix.SizeofUcred {
		return 0, false
	}
	pid = int(int32(binary.NativeEndian.Uint32(body)))
	return pid, pid > 0
}

// record is what the first record of a kind holds: struct cmsghdr is length (of a word, all of the record), level, type.
func record(control []byte, kind uint32) []byte {
	const word = unix.SizeofCmsghdr - 8
	for len(control) >= unix.SizeofCmsghdr {
		length := int(binary.NativeEndian.Uint32(control)) // no record needs more
		if length < unix.SizeofCmsghdr || length > len(control) {
			return nil
		}
		if binary.NativeEndian.Uint32(control[word:]) == unix.SOL_SOCKET && binary.NativeEndian.Uint32(control[word+4:]) == kind {
			return control[unix.SizeofCmsghdr:length]
		}
		control = control[min(len(control), (length+word-1)/word*word):]
	}
	return nil
}
