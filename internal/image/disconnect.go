package image

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of CRIU's inet_sk_entry, and its words for a connection that nobody can read or write any more.
const (
	socketShutdown = 19

	tcpClosed    = 7 // TCP_CLOSE of net/tcp_states.h
	shutdownBoth = 3 // sk_shutdown
)

// Disconnect makes the connections of the set in dir closed ones whose own address is among lost, and says how many they were.
// CRIU restores them as it does all with tcp_close: their program reads the end of them. The others are as they were, those over
// the loopback among them.
func Disconnect(dir string, lost []netip.Addr) (int, error) {
	const name = "files.img"
	if len(lost) == 0 {
		return 0, nil
	}
	content, err := readImage(dir, name)
	if err != nil {
		return 0, err
	}
	count := 0
	out := slices.Clone(content[:min(len(content), 8)]) // two magic numbers, which the reader checks
	err = eachRecord(name, content, filesMagic, func(record []byte) error {
		record, closed, err := disconnectFile(record, lost)
		if closed {
			count++
		}
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(record))), record...)
		return err
	})
	if err != nil || count == 0 {
		return 0, err
	}
	path := filepath.Join(dir, name)
	if err = os.WriteFile(path+".new", out, 0o600); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return 0, fmt.Errorf("close connections: %w", err)
	}
	return count, nil
}

// disconnectFile is a file_entry with its socket closed, if that is a connection of a lost address.
func disconnectFile(record []byte, lost []netip.Addr) (_ []byte, closed bool, err error) {
	file, err := parseEntry(record)
	if err != nil {
		return nil, false, damaged("files.img", "%v", err)
	}
	socket, err := file.child(fileSocket)
	if err != nil {
		return nil, false, damaged("files.img", "%v", err)
	}
	words, err := socket.list(socketSource)
	if err != nil {
		return nil, false, damaged("files.img", "%v", err)
	}
	local, ok := anyAddress(words)
	if socket.number(socketProtocol) != syscall.IPPROTO_TCP || socket.number(socketDestPort) == 0 || !ok || !slices.Contains(lost, local) {
		return record, false, nil
	}
	raw := file.bytes[fileSocket]
	changed := with(raw[len(raw)-1], map[protowire.Number]uint64{
		socketState: tcpClosed, socketSourcePort: 0, socketDestPort: 0, socketShutdown: shutdownBoth,
	})
	out := without(record, func(field protowire.Number) bool { return field == fileSocket })
	out = protowire.AppendTag(out, fileSocket, protowire.BytesType)
	return protowire.AppendBytes(out, changed), true, nil
}

// with is a message in which fields have other numbers.
func with(message []byte, values map[protowire.Number]uint64) []byte {
	out := without(message, func(field protowire.Number) bool { _, ok := values[field]; return ok })
	for field, value := range values {
		out = protowire.AppendTag(out, field, protowire.VarintType)
		out = protowire.AppendVarint(out, value)
	}
	return out
}

// without is a message, which has been parsed, less some of its fields.
func without(message []byte, drop func(field protowire.Number) bool) []byte {
	var out []byte
	for len(message) > 0 {
		field, _, n := protowire.ConsumeField(message)
		if n < 0 {
			return nil // it was parsed before
		}
		if !drop(field) {
			out = append(out, message[:n]...)
		}
		message = message[n:]
	}
	return out
}
