package netspace

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// Space is the network namespace of a container that is to come to this host. Close it; the namespace stays.
type Space struct {
	NS     *os.File
	Made   bool // by Make, and Remove may take it away
	record *Record
	ours   map[string]bool // interfaces that Make has made
}

// Make makes the namespace of a record that fits, with the interfaces that belong on bridges or nowhere: no frame gets out of
// it, or in. One that is at the path is cut off, and kept. What a Hook makes is made after that, and then Furnish is called.
// When it fails nothing is left.
func Make(r *Record) (_ *Space, err error) {
	s := &Space{record: r, ours: map[string]bool{}}
	if s.NS, err = Open(r.Path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make network namespace %s: %w", r.Path, err), s.Remove())
		}
	}()
	if s.NS != nil {
		if err := r.found(s.NS); err != nil { // this very one: Fit may have looked at another
			return s, err
		}
		return s, Cut(s.NS)
	}
	root, name, err := place(r.Path)
	if err != nil {
		return s, err
	}
	if s.NS, err = netns.New(); err != nil {
		return s, err
	}
	if err := netns.Bind(s.NS, root, name); err != nil {
		return s, err
	}
	s.Made = true
	// What new interfaces are made by.
	if _, err := writeSysctls(s.NS, r.Sysctls, func(key string) bool { _, of := ofInterface(key); return !of }); err != nil {
		return s, err
	}
	for i := range r.Links {
		if err := s.connect(&r.Links[i]); err != nil {
			return s, err
		}
	}
	return s, nil
}

// connect makes an interface, if that is not left to a Hook.
func (s *Space) connect(l *Link) error {
	switch {
	case l.isLoopback():
		return nil
	case l.Type == dummy:
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Namespace = l.Name, netlink.NsFd(s.NS.Fd())
		s.ours[l.Name] = true
		return s.add(&netlink.Dummy{LinkAttrs: attrs}, l)
	case l.Bridge == "":
		return nil
	}
	bridge, err := findBridge(l.Bridge)
	if errors.Is(err, ErrUnconnected) {
		return nil // Fit has refused it, or there is a hook
	}
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return fmt.Errorf("%w: interface %s: %w", ErrInvalid, l.Name, err)
	}
	name := endName(s.record.Path, l.Name)
	if err := removeEnd(name); err != nil { // of a namespace that is no longer at the path: the kernel takes its time over it
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, l.MTU, endMAC(name)
	if err := s.add(&netlink.Veth{
		LinkAttrs: attrs, PeerName: l.Name, PeerHardwareAddr: mac, PeerMTU: uint32(l.MTU), PeerNamespace: netlink.NsFd(s.NS.Fd()),
	}, l); err != nil {
		return err
	}
	s.ours[l.Name] = true
	if err := Cut(s.NS); err != nil {
		return err
	}
	return plug(name, bridge)
}

func (s *Space) add(made netlink.Link, l *Link) error {
	if err := netlink.LinkAdd(made); err != nil {
		return fmt.Errorf("make interface %s: %w", l.Name, err)
	}
	return nil
}

// plug puts a host's end on its bridge. It needs no addresses there.
func plug(name string, bridge netlink.Link) error {
	end, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE: a host without IPv6 has no such mode, and no need of it
	err = netlink.LinkSetIP6AddrGenMode(end, addrGenModeNone)
	if err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) && !errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("turn off IPv6 addresses on %s: %w", name, err)
	}
	if err := netlink.LinkSetMaster(end, bridge); err != nil {
		return fmt.Errorf("put %s on bridge %s: %w", name, bridge.Attrs().Name, err)
	}
	if err := netlink.LinkSetUp(end); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// endName is the host's end of an interface. It tells two namespaces apart, and is found again without a record.
func endName(path, link string) string {
	sum := sha256.Sum256([]byte(path + "\x00" + link))
	return fmt.Sprintf("mn%x", sum[:6])
}

// endMAC starts with fe: a bridge without an address of its own takes the lowest of its ports'.
func endMAC(name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(name))
	return append(net.HardwareAddr{0xfe}, sum[1:6]...)
}

// Remove takes away what Make has made; a namespace that was there stays, and stays cut off: the container it was prepared
// for is elsewhere. It closes the Space.
func (s *Space) Remove() error {
	var err error
	if s.Made {
		err = Remove(s.record)
	}
	return errors.Join(err, s.Close())
}

// Remove takes away a namespace that Make has made from the record, maybe in another process.
func Remove(r *Record) error {
	var err error
	for _, l := range r.Links {
		err = errors.Join(err, removeEnd(endName(r.Path, l.Name))) // it would go with the namespace, some time later
	}
	return errors.Join(err, netns.Unbind(r.Path))
}

func removeEnd(name string) error {
	end, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(end)
	}
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); err == nil || missing || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return fmt.Errorf("delete %s: %w", name, err)
}

// Close lets go of the namespace, which stays.
func (s *Space) Close() error {
	if s.NS == nil {
		return nil
	}
	err := s.NS.Close()
	s.NS = nil
	return err
}
