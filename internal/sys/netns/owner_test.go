package netns_test

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestSocketTellsWhereItWasMade(t *testing.T) {
	testutil.Root(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	here, there := socketInode(t), uint64(0)
	if err := netns.Do(ns, func() error {
		there = socketInode(t)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	mine, err := netns.InodeOfProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if here != mine || there != inode(t, ns) {
		t.Fatalf("sockets are of %d and %d, made in %d and %d", here, there, mine, inode(t, ns))
	}
	if _, err := netns.InodeOfSocket(int(os.Stdin.Fd())); !errors.Is(err, netns.ErrNoOwner) {
		t.Fatalf("stdin has a network namespace: %v", err)
	}
}

func socketInode(t *testing.T) uint64 {
	conn, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got, err := netns.InodeOfSocket(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return got
}
