package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	tcp_stream "github.com/checkpoint-restore/go-criu/v7/crit/images/tcp-stream"
	"google.golang.org/protobuf/proto"
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

// Connections lists the established IPv4 connections of the set in dir, those over the loopback left out: both ends of
// them are in the set.
func Connections(dir string) ([]Connection, error) {
	records, err := readRecords(dir, "files.img", filesMagic)
	if err != nil {
		return nil, err
	}
	var found []Connection
	for _, record := range records {
		var file fdinfo.FileEntry
		if err := proto.Unmarshal(record, &file); err != nil {
			return nil, damaged("files.img", "%v", err)
		}
		c, ok := connection(file.GetIsk())
		if !ok {
			continue
		}
		if c.Expects, err = expects(dir, file.GetIsk().GetIno()); err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	return found, nil
}

func connection(s *sk_inet.InetSkEntry) (c Connection, ok bool) {
	if s.GetProto() != syscall.IPPROTO_TCP || s.GetState() != tcpEstablished {
		return c, false
	}
	local, ok := address(s.GetSrcAddr())
	remote, ok2 := address(s.GetDstAddr())
	if !ok || !ok2 || remote.IsLoopback() || local == remote {
		return c, false
	}
	c.Local = netip.AddrPortFrom(local, uint16(s.GetSrcPort()))
	c.Remote = netip.AddrPortFrom(remote, uint16(s.GetDstPort()))
	return c, true
}

// address reads an IPv4 address, plain or mapped into an IPv6 socket's. CRIU keeps the words as the kernel has them.
func address(words []uint32) (netip.Addr, bool) {
	var b []byte
	for _, word := range words {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	a, ok := netip.AddrFromSlice(b)
	a = a.Unmap()
	return a, ok && a.Is4()
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
	var stream tcp_stream.TcpStreamEntry
	if err := proto.Unmarshal(record, &stream); err != nil {
		return 0, errors.Join(damaged(name, "the record"), err)
	}
	return stream.GetInqSeq(), nil
}
