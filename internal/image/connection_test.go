package image

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fown"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	sk_opts "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-opts"
	tcp_stream "github.com/checkpoint-restore/go-criu/v7/crit/images/tcp-stream"
	"google.golang.org/protobuf/proto"
)

func socketRecord(t *testing.T, ino uint32, state uint32, local, remote string) []byte {
	words := func(address string) (port *uint32, words []uint32) {
		a := netip.MustParseAddrPort(address)
		b := a.Addr().AsSlice()
		for ; len(b) > 0; b = b[4:] {
			words = append(words, binary.LittleEndian.Uint32(b))
		}
		return proto.Uint32(uint32(a.Port())), words
	}
	s := &sk_inet.InetSkEntry{
		Id: proto.Uint32(ino), Ino: proto.Uint32(ino), Family: proto.Uint32(2), Type: proto.Uint32(1), Proto: proto.Uint32(6),
		State: proto.Uint32(state), Flags: proto.Uint32(0), Backlog: proto.Uint32(0),
		Fown: &fown.FownEntry{Uid: proto.Uint32(0), Euid: proto.Uint32(0), Signum: proto.Uint32(0), PidType: proto.Uint32(0), Pid: proto.Uint32(0)},
		Opts: &sk_opts.SkOptsEntry{
			SoSndbuf: proto.Uint32(0), SoRcvbuf: proto.Uint32(0), SoSndTmoSec: proto.Uint64(0), SoSndTmoUsec: proto.Uint64(0),
			SoRcvTmoSec: proto.Uint64(0), SoRcvTmoUsec: proto.Uint64(0),
		},
	}
	s.SrcPort, s.SrcAddr = words(local)
	s.DstPort, s.DstAddr = words(remote)
	record, err := proto.Marshal(&fdinfo.FileEntry{Type: fdinfo.FdTypes_INETSK.Enum(), Id: proto.Uint32(ino), Isk: s})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func streamRecord(t *testing.T, expects uint32) []byte {
	record, err := proto.Marshal(&tcp_stream.TcpStreamEntry{
		InqLen: proto.Uint32(3), InqSeq: &expects, OutqLen: proto.Uint32(0), OutqSeq: proto.Uint32(1),
		OptMask: proto.Uint32(0), SndWscale: proto.Uint32(7), MssClamp: proto.Uint32(1460),
	})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func TestConnectionsAreThoseThatSomebodyOutsideWaitsOn(t *testing.T) {
	dir := t.TempDir()
	const established, listening = 1, 10
	write(t, dir, "files.img", file(filesMagic,
		socketRecord(t, 0x1a, established, "10.0.0.2:6379", "10.0.0.9:40000"),
		socketRecord(t, 0x1b, listening, "0.0.0.0:6379", "0.0.0.0:0"),
		socketRecord(t, 0x1c, established, "127.0.0.1:6379", "127.0.0.1:40001"),
		socketRecord(t, 0x1d, established, "[::ffff:10.0.0.2]:6379", "[::ffff:10.0.0.9]:40002"),
		socketRecord(t, 0x1e, established, "[2001:db8::2]:6379", "[2001:db8::9]:40003"),
	))
	write(t, dir, "tcp-stream-1a.img", append(file(tcpStreamMagic, streamRecord(t, 100)), "abc"...))
	write(t, dir, "tcp-stream-1d.img", append(file(tcpStreamMagic, streamRecord(t, 200)), "abc"...))
	got, err := Connections(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []Connection{
		{netip.MustParseAddrPort("10.0.0.2:6379"), netip.MustParseAddrPort("10.0.0.9:40000"), 100},
		{netip.MustParseAddrPort("10.0.0.2:6379"), netip.MustParseAddrPort("10.0.0.9:40002"), 200},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}

	if err := os.Truncate(filepath.Join(dir, "tcp-stream-1d.img"), 20); err != nil {
		t.Fatal(err)
	}
	if _, err := Connections(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("a cut image: %v, want ErrDamaged", err)
	}
}
