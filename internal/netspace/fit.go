package netspace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// Open opens the namespace at a path; nil when nothing is there. ErrOther when there is something else.
func Open(path string) (*os.File, error) {
	is, err := netns.IsAt(path)
	if err != nil {
		return nil, err
	}
	if is {
		return netns.Open(path)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is no network namespace", ErrOther, path)
	}
	return nil, nil
}

// IsHosts tells whether ns is the network namespace of this process, or of the first one: what an operator calls the host.
func IsHosts(ns *os.File) (bool, error) {
	theirs, err := netns.Inode(ns)
	if err != nil {
		return false, err
	}
	here, err := netns.Current()
	if err != nil {
		return false, err
	}
	defer here.Close()
	ours, err := netns.Inode(here)
	if err != nil || ours == theirs {
		return ours == theirs, err
	}
	first, err := netns.InodeOfProcess(1)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		return false, nil // it cannot be entered by a path either
	}
	return first == theirs, err
}

// notHosts is ErrOther for the host's own namespace: to cut that off would end this very connection, and all others.
func notHosts(ns *os.File, path string) error {
	hosts, err := IsHosts(ns)
	if hosts {
		return fmt.Errorf("%w: %s is the network namespace of this host", ErrOther, path)
	}
	return err
}

// OfProcess tells a path that is a process's and not a name: no other host has it.
func OfProcess(path string) bool { return strings.HasPrefix(path, "/proc/") }

// Fit tells by an error whether this host, the peer, could have the namespace: one with the record's addresses is at the path,
// or none, and there is something to connect it to. hooked says that a Hook connects what no bridge does. Nothing is changed.
func (r *Record) Fit(hooked bool) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if !validPath(r.Path) {
		return fmt.Errorf("%w: path %.100q", ErrInvalid, r.Path)
	}
	if OfProcess(r.Path) {
		return fmt.Errorf("%w: %s is a process's", ErrOther, r.Path)
	}
	ns, err := Open(r.Path)
	if err != nil {
		return err
	}
	if ns == nil {
		if _, _, err := place(r.Path); err != nil {
			return err
		}
		return r.connectable(hooked)
	}
	defer ns.Close()
	return r.found(ns)
}

// found tells by an error whether a namespace that is at the path is not to be used.
func (r *Record) found(ns *os.File) error {
	if err := notHosts(ns, r.Path); err != nil {
		return err
	}
	missing, err := r.Missing(ns)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: the network namespace at %s has no address %s", ErrOther, r.Path, join(missing))
	}
	return err
}

// Missing are the record's addresses that ns does not have.
func (r *Record) Missing(ns *os.File) ([]netip.Addr, error) {
	inside, err := openInside(ns)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	there, err := inside.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses in network namespace: %w", err)
	}
	missing := r.Addresses()
	return slices.DeleteFunc(missing, func(a netip.Addr) bool {
		return slices.ContainsFunc(there, func(t netlink.Addr) bool {
			ip, _ := netip.AddrFromSlice(t.IP)
			return ip.Unmap() == a
		})
	}), nil
}

func join(addresses []netip.Addr) string {
	var texts []string
	for _, a := range addresses {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// connectable tells whether each interface can be made here.
func (r *Record) connectable(hooked bool) error {
	if hooked {
		return nil
	}
	if a := r.Addresses(); slices.ContainsFunc(a, netip.Addr.Is6) && !hasIPv6() {
		return fmt.Errorf("%w: %s", ErrNoIPv6, join(a))
	}
	for _, l := range r.Links {
		if l.isLoopback() || l.Type == dummy || !l.Up && len(l.Addresses) == 0 {
			continue
		}
		if l.Bridge == "" {
			return fmt.Errorf("%w: its interface %s, a %s, is not on a bridge of the source's", ErrUnconnected, l.Name, l.Type)
		}
		if _, err := findBridge(l.Bridge); err != nil {
			return err
		}
	}
	return nil
}

const dummy = "dummy"

func hasIPv6() bool {
	_, err := os.Stat("/proc/self/net/if_inet6")
	return err == nil
}

// place is where a namespace of that path would be made, beneath a directory that only root writes to. Nothing else than engines'
// and ip-netns's directories will do: the path is the other host's word, and files like /run/nologin mean something.
func place(path string) (root, name string, err error) {
	for _, root := range []string{"/run", "/var/run"} {
		if name, ok := strings.CutPrefix(path, root+"/"); ok && filepath.Base(filepath.Dir(path)) == "netns" {
			return root, name, nil
		}
	}
	return "", "", fmt.Errorf("%w: %s: this host makes them in directories below /run that are called netns", ErrPlace, path)
}

func findBridge(name string) (netlink.Link, error) {
	bridge, err := netlink.LinkByName(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: there is no bridge %s on this host (ip link add %s type bridge && ip link set %s up)", ErrUnconnected, name, name, name)
	case bridge.Type() != "bridge":
		return nil, fmt.Errorf("%w: %s is a %s interface, not a bridge", ErrUnconnected, name, bridge.Type())
	case bridge.Attrs().Flags&net.FlagUp == 0:
		return nil, fmt.Errorf("%w: bridge %s is down (ip link set %s up)", ErrUnconnected, name, name)
	}
	return bridge, nil
}
