// Package netdevice moves network devices of the host into a container's network namespace (linux.netDevices).
//
// A device keeps its hardware address, MTU and permanent global addresses; routes are lost with every move. It comes
// back only when the container could not be made. Afterwards its fate is the kernel's, as the specification wants it: it
// stays in a namespace that others hold; with the last holder a physical device returns to the host's first namespace,
// and a virtual one is deleted.
package netdevice

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Moved is a device in the namespace it was moved to.
type Moved struct {
	name, inside string
	wasUp        bool
}

// Move moves the device called name of the calling process's network namespace into the namespace ns, where it is called
// inside, and up. It needs CAP_NET_ADMIN in both. When it fails the device is back where it was.
func Move(name, inside string, ns *os.File) (_ *Moved, err error) {
	own, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	here, there, err := handles(own, netns.NsHandle(ns.Fd()))
	if err != nil {
		return nil, err
	}
	defer here.Close()
	defer there.Close()
	device, err := find(here, name)
	if err != nil {
		return nil, fmt.Errorf("find network device %s: %w", name, err)
	}
	m := &Moved{name: name, inside: inside, wasUp: device.Attrs().Flags&unix.IFF_UP != 0}
	if err := transfer(here, there, own, netns.NsHandle(ns.Fd()), device, inside, true); err != nil {
		return nil, fmt.Errorf("move network device %s into the container as %s: %w", name, inside, err)
	}
	return m, nil
}

// Return moves the device back. A namespace that is gone, or a device that is, is no error: the kernel has decided.
func (m *Moved) Return(ns *os.File) error {
	own, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	here, there, err := handles(own, netns.NsHandle(ns.Fd()))
	if err != nil {
		return err
	}
	defer here.Close()
	defer there.Close()
	device, err := find(there, m.inside)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = transfer(there, here, netns.NsHandle(ns.Fd()), own, device, m.name, m.wasUp)
	}
	if err != nil {
		return fmt.Errorf("move network device %s back to the host: %w", m.name, err)
	}
	return nil
}

func handles(own, other netns.NsHandle) (here, there *netlink.Handle, err error) {
	if here, err = netlink.NewHandleAt(own, unix.NETLINK_ROUTE); err != nil {
		return nil, nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if there, err = netlink.NewHandleAt(other, unix.NETLINK_ROUTE); err != nil {
		here.Close()
		return nil, nil, fmt.Errorf("open netlink socket in the container's network namespace: %w", err)
	}
	return here, there, nil
}

// find takes an answer that other changes interrupted: it is about one device.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	device, err := h.LinkByName(name)
	if errors.Is(err, netlink.ErrDumpInterrupted) && device != nil {
		err = nil
	}
	return device, err
}

// transfer moves a device and gives it its addresses again. Should that fail, it goes back.
func transfer(from, to *netlink.Handle, fromNS, toNS netns.NsHandle, device netlink.Link, name string, up bool) error {
	if _, err := find(to, name); err == nil {
		return errors.New("the name is taken there")
	}
	addresses, err := kept(from, device) // before it goes down, which IPv6 addresses do not survive
	if err != nil {
		return err
	}
	old := device.Attrs()
	wasUp := old.Flags&unix.IFF_UP != 0
	// The kernel takes an active device down by itself, but does not rename one.
	if err := from.LinkSetDown(device); err != nil {
		return fmt.Errorf("set it down: %w", err)
	}
	err = send(fromNS, toNS, old.Index, name)
	if err == nil {
		var arrived netlink.Link
		if arrived, err = find(to, name); err == nil {
			err = settle(to, arrived, addresses, up)
		}
	}
	if err == nil {
		return nil
	}
	device, lost := find(from, old.Name)
	if lost != nil {
		// It was moved. When only the renaming failed, it is there by its old name.
		for _, left := range []string{name, old.Name} {
			if device, lost = find(to, left); lost == nil {
				lost = send(toNS, fromNS, device.Attrs().Index, old.Name)
				break
			}
		}
		if lost == nil {
			device, lost = find(from, old.Name)
		}
	}
	if lost == nil {
		lost = settle(from, device, addresses, wasUp)
	}
	return errors.Join(err, lost)
}

// kept lists the addresses that mean the same elsewhere: those an administrator gave, not those of a lease, an
// advertisement or the link itself.
func kept(h *netlink.Handle, device netlink.Link) ([]netlink.Addr, error) {
	list, err := h.AddrList(device, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list its addresses: %w", err)
	}
	var out []netlink.Addr
	for _, a := range list {
		if a.Flags&unix.IFA_F_PERMANENT != 0 && a.Scope == unix.RT_SCOPE_UNIVERSE {
			out = append(out, netlink.Addr{IPNet: a.IPNet, Peer: a.Peer})
		}
	}
	return out, nil
}

// send moves and renames in one request: in between, the name may be taken at either end.
func send(from, to netns.NsHandle, index int, name string) error {
	socket, err := nl.GetNetlinkSocketAt(from, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer socket.Close()
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	request.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(to))))
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func settle(h *netlink.Handle, device netlink.Link, addresses []netlink.Addr, up bool) error {
	for i := range addresses {
		if err := h.AddrReplace(device, &addresses[i]); err != nil {
			return fmt.Errorf("give it its address %s: %w", addresses[i].IPNet, err)
		}
	}
	if !up {
		return nil
	}
	if err := h.LinkSetUp(device); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}
