package checkpoint

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
)

// A socket or process of another network namespace would come back in the container's, silently.
func TestWhatIsOfAnotherNetworkKeepsCRIUOutside(t *testing.T) {
	testutil.Root(t)
	self := os.Getpid()
	own, err := sharedNetwork(self, []int{self, 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	known := newSockets(own)
	if err := known.check([]int{self, 1 << 30}); err != nil {
		t.Fatalf("nothing is foreign yet: %v", err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var socket net.PacketConn
	child := exec.CommandContext(t.Context(), "sleep", "100")
	if err := netns.Do(ns, func() (err error) {
		if socket, err = net.ListenPacket("udp", ":0"); err != nil {
			return err
		}
		return child.Start()
	}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		socket.Close()
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	if err := known.check([]int{self}); !errors.Is(err, errForeign) { // it came after the first look
		t.Errorf("a socket of another namespace: %v", err)
	}
	if _, err := sharedNetwork(self, []int{self, child.Process.Pid}); !errors.Is(err, errForeign) {
		t.Errorf("a process in another namespace: %v", err)
	}
}

func TestTUNDeviceKeepsCRIUOutside(t *testing.T) {
	testutil.Root(t)
	tun, err := os.OpenFile(tunPath, os.O_RDWR, 0)
	testutil.Kernel(t, err == nil, "TUN devices")
	defer tun.Close()
	self := os.Getpid()
	own, err := netns.InodeOfProcess(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := newSockets(own).check([]int{self}); !errors.Is(err, errForeign) {
		t.Fatalf("a process with a TUN device: %v", err)
	}
}
