package image

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
)

// Connection is an established TCP connection of a set.
type Connection struct {
	Local, Remote netip.AddrPort
	Expects       uint32 // sequence number of the byte that the container wants next
}

const (
	filesMagic     = 0x56303138
	tcpStreamMagic = 0x51465506
	tcpEstablished = 1 // TCP_ESTABLISHED of net/tcp_states.h
)

// Fields of CRIU's file_entry, inet_sk_entry and tcp_stream_entry (images/fdinfo.proto, sk-inet.proto, tcp-stream.proto).
const (
	fileSocket = 4

	socketIno        = 2
	socketProtocol   = 5
	socketState      = 6
	socketSourcePort = 7
	socketDestPort   = 8
	socketSource     = 11
	socketDest       = 12

	streamExpects = 2
)

// Connections lists the established IPv4 connections of the set in dir, those over the loopback left out: both ends of
// them are in the set.
func Connections(dir string) ([]Connection, error) {
	records, err := readRecords(dir, "files.img", filesMagic)
	if err != nil {
		return nil, err
	}
	var found []Connection
	for _, record := range records {
		file, err := parseEntry(record)
		if err != nil {
			return nil, damaged("files.img", "%v", err)
		}
		socket, err := file.child(fileSocket)
		if err != nil {
			return nil, damaged("files.img", "%v", err)
		}
		c, ok, err := connection(socket)
		if err != nil {
			return nil, damaged("files.img", "%v", err)
		}
		if !ok {
			continue
		}
		if c.Expects, err = expects(dir, uint32(socket.number(socketIno))); err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	return found, nil
}

func connection(s *entry) (c Connection, ok bool, err error) {
	if s.number(socketProtocol) != syscall.IPPROTO_TCP || s.number(socketState) != tcpEstablished {
		return c, false, nil
	}
	source, err := s.list(socketSource)
	if err != nil {
		return c, false, err
	}
	dest, err := s.list(socketDest)
	if err != nil {
		return c, false, err
	}
	local, ok := address(source)
	remote, ok2 := address(dest)
	if !ok || !ok2 || remote.IsLoopback() || local == remote {
		return c, false, nil
	}
	c.Local = netip.AddrPortFrom(local, uint16(s.number(socketSourcePort)))
	c.Remote = netip.AddrPortFrom(remote, uint16(s.number(socketDestPort)))
	return c, true, nil
}

// address reads an IPv4 address, plain or mapped into an IPv6 socket's. CRIU keeps the words as the kernel has them.
func address(words []uint64) (netip.Addr, bool) {
	a, ok := anyAddress(words)
	return a, ok && a.Is4()
}

func anyAddress(words []uint64) (netip.Addr, bool) {
	var b []byte
	for _, word := range words {
		b = binary.LittleEndian.AppendUint32(b, uint32(word))
	}
	a, ok := netip.AddrFromSlice(b)
	return a.Unmap(), ok
}

// expects reads the head of a connection's image. What follows it are the queues, as raw bytes.
func expects(dir string, ino uint32) (uint32, error) {
	name := fmt.Sprintf("tcp-stream-%x.img", ino)
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return 0, fmt.Errorf("read image: %w", err)
	}
	defer file.Close()
	head := make([]byte, 12)
	if _, err := io.ReadFull(file, head); err != nil {
		return 0, damaged(name, "%v", err)
	}
	if binary.LittleEndian.Uint32(head[4:]) != tcpStreamMagic {
		return 0, damaged(name, "it is no image of a connection")
	}
	const most = 4096
	size := binary.LittleEndian.Uint32(head[8:])
	if size > most {
		return 0, damaged(name, "a record of %d bytes", size)
	}
	record := make([]byte, size)
	if _, err := io.ReadFull(file, record); err != nil {
		return 0, damaged(name, "%v", err)
	}
	stream, err := parseEntry(record)
	if err != nil {
		return 0, damaged(name, "%v", err)
	}
	return uint32(stream.number(streamExpects)), nil
}
