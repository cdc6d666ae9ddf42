package descriptor

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RightSize is the length of the control bytes of one descriptor.
const RightSize = 24

// ReceivePlaced is one recvmsg of a connection that does not wait: the data, and in control (RightSize bytes, zero before)
// the record of a descriptor that came along, are written by the kernel to the caller's memory within the call. Where that
// memory is shared, and the table of descriptors too (process.Hold), the descriptor can be found after this process was
// killed at any moment. n is 0 at the end of the stream; unix.EAGAIN when nothing is there yet.
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
	// struct cmsghdr: length (of a word), level, type; then the number.
	word := unix.SizeofCmsghdr - 8
	if len(control) < RightSize || binary.NativeEndian.Uint32(control[word:]) != unix.SOL_SOCKET ||
		binary.NativeEndian.Uint32(control[word+4:]) != unix.SCM_RIGHTS {
		return 0, false
	}
	return int(int32(binary.NativeEndian.Uint32(control[unix.SizeofCmsghdr:]))), true
}
