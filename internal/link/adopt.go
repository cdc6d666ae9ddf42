package link

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Adopt takes over a pair that somebody else made for the container, CRIU inside a user namespace, with the container's
// end in ns and the other end, of whatever name, in the network namespace from. The other end comes to the host, under a
// name as Attach gives, and is on no bridge. c is complete then: keep it. ErrNotFound when from has no veth.
func Adopt(from, ns *os.File, id string, c *Config) (*Link, error) {
	l := &Link{config: *c, ns: ns}
	if err := l.fetch(from, id); err != nil {
		return nil, fmt.Errorf("adopt link of container %q: %w", id, err)
	}
	c.HostEnd = l.config.HostEnd
	return l, nil
}

func (l *Link) fetch(from *os.File, id string) error {
	there, err := netlink.NewHandleAt(netns.NsHandle(from.Fd()), syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket in network namespace: %w", err)
	}
	defer there.Close()
	links, err := there.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("find the host's network namespace: %w", err)
	}
	defer here.Close()
	for _, end := range links {
		if end.Type() != "veth" {
			continue
		}
		return l.moveHere(there, end, int(here), id)
	}
	return fmt.Errorf("%w: no veth in the namespace it was made in", ErrNotFound)
}

// moveHere tries the names in the same order as makePair, for the same reason.
func (l *Link) moveHere(there *netlink.Handle, end netlink.Link, here int, id string) error {
	const attempts = 8
	var err error
	for attempt := range attempts {
		name := hostEndName(id, attempt)
		if err = there.LinkSetName(end, name); err != nil {
			return fmt.Errorf("rename %q to %q: %w", end.Attrs().Name, name, err)
		}
		if err = there.LinkSetNsFd(end, here); err == nil {
			l.config.HostEnd = name
			return nil
		}
		if !errors.Is(err, syscall.EEXIST) {
			break
		}
	}
	return fmt.Errorf("move %q to the host: %w", end.Attrs().Name, err)
}
