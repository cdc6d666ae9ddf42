package preflight

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// outside are a socket of streams and one of datagrams that processes of the container may be connected to.
func outside(t *testing.T) (stream, datagrams string) {
	t.Helper()
	dir := t.TempDir()
	stream, datagrams = filepath.Join(dir, "stream"), filepath.Join(dir, "datagrams")
	listener, err := net.Listen("unix", stream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: datagrams})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return stream, datagrams
}

// A network namespace is asked about by any of the processes in it: the first may just have ended.
func TestConnectionsAreFoundWhenTheFirstProcessHasEnded(t *testing.T) {
	testutil.Root(t)
	stream, _ := outside(t)
	p, err := readProcess(odd(t, "unix "+stream))
	if err != nil {
		t.Fatal(err)
	}
	ended := &proc{pid: 1 << 22, namespaces: p.namespaces}
	c := &container{subject: &Subject{}, processes: []*proc{ended, p}}
	if leads, err := c.outward(); err != nil || len(leads) != 1 {
		t.Errorf("found %v, %v", leads, err)
	}
	c.processes = []*proc{{pid: 1 << 22, namespaces: p.namespaces, descriptors: p.descriptors}}
	if leads, err := c.outward(); err != nil || len(leads) != 0 {
		t.Errorf("found %v, %v, when all have ended", leads, err)
	}
}

// Only what would be refused is looked at again.
func TestConnectionsAreLookedAtAgain(t *testing.T) {
	testutil.Root(t)
	stream, datagrams := outside(t)
	for what, want := range map[string]struct {
		severity Severity
		looks    int
	}{"unix " + stream: {Blocker, outsideLooks}, "unixgram " + datagrams: {Warning, 0}, "plain": {looks: 0}} {
		pid := odd(t, what)
		looks := 0
		now := func() ([]int, error) { looks++; return []int{pid, 1 << 22}, nil }
		p, err := readProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		c := &container{subject: &Subject{Pids: []int{pid}, Now: now}, processes: []*proc{p}}
		found, err := c.judgeUnix(t.Context())
		if err != nil || looks != want.looks || what == "plain" != (len(found) == 0) || len(found) > 0 && !has(found, want.severity, UnixSocket) {
			t.Errorf("%s: %d looks, %v, %v", what, looks, found, err)
		}
	}
}
