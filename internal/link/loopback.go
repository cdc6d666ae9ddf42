package link

import (
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// LoopbackUp brings up lo in a network namespace, which the kernel makes with lo down.
func LoopbackUp(ns *os.File) error {
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket in network namespace: %w", err)
	}
	defer inside.Close()
	lo, err := inside.LinkByName("lo")
	if err == nil {
		err = inside.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
