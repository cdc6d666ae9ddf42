package socket

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"
)

// Both ends of a connection, of either kind, name each other.
func TestListUnixTellsPeersAndNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "datagrams")
	server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	all, err := ListUnix()
	if err != nil {
		t.Fatal(err)
	}
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(b.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	byInode := make(map[uint32]Unix)
	for _, s := range all {
		byInode[s.Inode] = s
	}
	end := byInode[uint32(stat.Ino)]
	if end.Type != syscall.SOCK_STREAM || byInode[end.Peer].Peer != end.Inode {
		t.Errorf("of a pair: %+v, %+v", end, byInode[end.Peer])
	}
	found := false
	for _, s := range all {
		found = found || s.Type == syscall.SOCK_DGRAM && byInode[s.Peer].Name == path
	}
	if !found {
		t.Errorf("nobody is connected to %s", path)
	}
}

// A connection that was not accepted yet is known by the socket that it waits at.
func TestListUnixTellsWhoWaits(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if found := waiting(t, listener); found == nil || UnreadBeforeAccept(found) {
		t.Errorf("nobody waits at %s without having said anything: %+v", listener.Addr(), found)
	}
	if _, err := client.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if found := waiting(t, listener); !UnreadBeforeAccept(found) {
		t.Errorf("a question is not seen: %+v", found)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if found := waiting(t, listener); found != nil {
		t.Errorf("somebody waits still: %+v", found)
	}
}

// waiting are the listener and the one that waits at it, nil when nobody does.
func waiting(t *testing.T, listener net.Listener) []Unix {
	t.Helper()
	all, err := ListUnix()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name != listener.Addr().String() || len(s.Waiting) == 0 {
			continue
		}
		for _, c := range all {
			if len(s.Waiting) == 1 && c.Inode == s.Waiting[0] && c.Peer == 0 && c.Name == "" {
				return []Unix{s, c}
			}
		}
	}
	return nil
}

// What the kernel would never send must not end the program.
func TestParseUnixRefusesNonsense(t *testing.T) {
	for _, data := range [][]byte{nil, {1}, make([]byte, 16), {255, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if d, err := parseUnix(data); len(data) >= 16 && err == nil || len(d.sockets) > 0 {
			t.Errorf("%v: %+v, %v", data, d, err)
		}
	}
}
