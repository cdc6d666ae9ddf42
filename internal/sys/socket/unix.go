package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Unix is a unix socket, as sock_diag(7) tells of it.
type Unix struct {
	Type  int
	Inode uint32
	Peer  uint32 // inode of the one that it is connected to; 0: it is not, or that was not accepted yet
	Name  string // an abstract one begins with "@"; "" for none

	Unread  uint32   // bytes that it has sent and nobody has read, as they count against its buffer
	Waiting []uint32 // of one that listens: inodes of those whose connections to it were not accepted yet
}

// Of linux/unix_diag.h.
const (
	udiagShowName, udiagShowPeer, udiagShowIcons, udiagShowQueues = 1, 4, 8, 16

	unixDiagName, unixDiagPeer, unixDiagIcons, unixDiagQueues = 0, 2, 3, 4

	unixDiagHead = 16 // bytes of struct unix_diag_msg
)

// ListUnix lists the unix sockets of this thread's network namespace.
func ListUnix() ([]Unix, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request := make([]byte, unix.NLMSG_HDRLEN+24) // struct unix_diag_req
	order := binary.NativeEndian
	order.PutUint32(request, uint32(len(request)))
	order.PutUint16(request[4:], unix.SOCK_DIAG_BY_FAMILY)
	order.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := request[unix.NLMSG_HDRLEN:]
	body[0] = unix.AF_UNIX
	order.PutUint32(body[4:], ^uint32(0)) // in every state
	order.PutUint32(body[12:], udiagShowName|udiagShowPeer|udiagShowIcons|udiagShowQueues)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	var all []Unix
	for buf := make([]byte, 64<<10); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		messages, err := parseUnix(buf[:n])
		all = append(all, messages.sockets...)
		if err != nil || messages.done {
			return all, err
		}
	}
}

// UnreadBeforeAccept tells whether data waits in any connection that nobody has accepted: it can be had by accepting only.
func UnreadBeforeAccept(sockets []Unix) bool {
	unread := make(map[uint32]bool)
	for _, s := range sockets {
		unread[s.Inode] = s.Unread > 0
	}
	for _, s := range sockets {
		for _, client := range s.Waiting {
			if unread[client] {
				return true
			}
		}
	}
	return false
}

type unixDump struct {
	sockets []Unix
	done    bool
}

// parseUnix reads the messages of one datagram.
func parseUnix(data []byte) (d unixDump, err error) {
	order := binary.NativeEndian
	for len(data) >= unix.NLMSG_HDRLEN {
		size := int(order.Uint32(data))
		if size < unix.NLMSG_HDRLEN || size > len(data) {
			return d, fmt.Errorf("list unix sockets: a message of %d bytes in %d", size, len(data))
		}
		body := data[unix.NLMSG_HDRLEN:size]
		switch order.Uint16(data[4:]) {
		case unix.NLMSG_DONE:
			d.done = true
			return d, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return d, errors.New("list unix sockets: a cut message")
			}
			return d, os.NewSyscallError("sock_diag", unix.Errno(-int32(order.Uint32(body))))
		}
		if len(body) >= unixDiagHead {
			s := Unix{Type: int(body[1]), Inode: order.Uint32(body[4:])}
			s.attributes(body[unixDiagHead:])
			d.sockets = append(d.sockets, s)
		}
		data = data[min(aligned(size), len(data)):]
	}
	return d, nil
}

func (s *Unix) attributes(data []byte) {
	order := binary.NativeEndian
	for len(data) >= unix.SizeofNlAttr {
		size := int(order.Uint16(data))
		if size < unix.SizeofNlAttr || size > len(data) {
			return
		}
		value := data[unix.SizeofNlAttr:size]
		switch order.Uint16(data[2:]) {
		case unixDiagName:
			if len(value) > 0 && value[0] == 0 {
				s.Name = "@" + string(value[1:])
			} else {
				s.Name = unix.ByteSliceToString(value)
			}
		case unixDiagPeer:
			if len(value) >= 4 {
				s.Peer = order.Uint32(value)
			}
		case unixDiagQueues: // struct unix_diag_rqlen: of one that listens these are its queue of connections, and its limit
			if len(value) >= 8 {
				s.Unread = order.Uint32(value[4:])
			}
		case unixDiagIcons:
			for ; len(value) >= 4; value = value[4:] {
				s.Waiting = append(s.Waiting, order.Uint32(value))
			}
		}
		data = data[min(aligned(size), len(data)):]
	}
}

func aligned(size int) int { return (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
