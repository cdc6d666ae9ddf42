package netns_test

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestNewLeavesTheCallerWhereItWas(t *testing.T) {
	testutil.Root(t)
	before := current(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if after := current(t); after != before {
		t.Fatalf("the caller is in namespace %d, was in %d", after, before)
	}
	if made := inode(t, ns); made == before {
		t.Fatal("the new namespace is the caller's own")
	}
}

func TestDoRunsInsideAndComesHome(t *testing.T) {
	testutil.Root(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	before := current(t)
	failure := errors.New("of f")
	err = netns.Do(ns, func() error {
		if current(t) != inode(t, ns) {
			t.Error("f ran outside of the namespace")
		}
		interfaces, err := net.Interfaces()
		if err != nil || len(interfaces) != 1 || interfaces[0].Name != "lo" {
			t.Errorf("a new namespace holds %v, %v", interfaces, err)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("f's error is lost: %v", err)
	}
	if after := current(t); after != before {
		t.Fatalf("the caller is in namespace %d, was in %d", after, before)
	}
}

func TestDoRefusesWhatIsNoNetworkNamespace(t *testing.T) {
	testutil.Root(t)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := netns.Do(file, func() error { t.Error("f ran"); return nil }); err == nil {
		t.Fatal("entered /dev/null")
	}
}

func current(t *testing.T) uint64 {
	t.Helper()
	ns, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	return inode(t, ns)
}

func inode(t *testing.T, ns *os.File) uint64 {
	t.Helper()
	ino, err := netns.Inode(ns)
	if err != nil {
		t.Fatal(err)
	}
	return ino
}
