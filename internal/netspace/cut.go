package netspace

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// cutTable is ours in the namespace: while it is there, nothing leaves and nothing comes in.
const cutTable = "migrate-cut"

// ErrNoCut: this kernel can't cut a namespace off. It takes nftables with CONFIG_NF_TABLES_NETDEV and
// CONFIG_NETFILTER_EGRESS, Linux 5.16.
var ErrNoCut = errors.New("this kernel cannot cut a network namespace off")

// Cut cuts the namespace off from everything but itself: each of its interfaces drops every frame, in and out. Nobody inside
// sees a change: no interface goes down, no route is lost. One that is cut off stays so. It takes a millisecond.
func Cut(ns *os.File) error {
	return cut(ns, func(l netlink.Link) bool { return l.Attrs().Flags&net.FlagLoopback == 0 })
}

// CanCut tells by an error whether Cut would not work on this host. It cuts the loopback of a new namespace, which ends with it.
func CanCut() error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	return errors.Join(cut(ns, func(netlink.Link) bool { return true }), ns.Close())
}

// cut makes the table anew, in one transaction: there may be interfaces that were not there before.
func cut(ns *os.File, which func(netlink.Link) bool) error {
	inside, err := openInside(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	links, err := inside.LinkList()
	if err != nil {
		return fmt.Errorf("cut off network namespace: list interfaces: %w", err)
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("cut off network namespace: open nftables: %w", err)
	}
	table := remake(conn, cutTable)
	conn.AddTable(table)
	for _, l := range links {
		if which(l) {
			addChain(conn, table, l, "in", nftables.ChainHookIngress)
			addChain(conn, table, l, "out", nftables.ChainHookEgress)
		}
	}
	if err := conn.Flush(); err != nil {
		if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.ENOENT) {
			err = fmt.Errorf("%w: %w", ErrNoCut, err)
		}
		return fmt.Errorf("cut off network namespace: %w", err)
	}
	return nil
}

// remake deletes a table that may be there: to delete one that is not there is an error, and to add one that is there is none.
func remake(conn *nftables.Conn, name string) *nftables.Table {
	table := &nftables.Table{Name: name, Family: nftables.TableFamilyNetdev}
	conn.AddTable(table)
	conn.DelTable(table)
	return table
}

// addChain makes a chain before all others, without rules.
func addChain(conn *nftables.Conn, table *nftables.Table, l netlink.Link, way string, hook *nftables.ChainHook) {
	policy := nftables.ChainPolicyDrop
	conn.AddChain(&nftables.Chain{
		Name: fmt.Sprintf("%s-%d", way, l.Attrs().Index), Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFirst), Policy: &policy, Device: l.Attrs().Name,
	})
}

// Join ends Cut. A namespace that is not cut off stays as it is.
func Join(ns *os.File) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("join network: open nftables: %w", err)
	}
	remake(conn, cutTable)
	if err := conn.Flush(); err != nil && !unsupported(err) {
		return fmt.Errorf("join network: %w", err)
	}
	return nil
}

// IsCut tells whether it is cut off.
func IsCut(ns *os.File) (bool, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	all, err := conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
	if err != nil && !unsupported(err) {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range all {
		if t.Name == cutTable {
			return true, nil
		}
	}
	return false, nil
}

// tables are the nftables tables in ns that are not ours.
func tables(ns *os.File) ([]string, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	all, err := conn.ListTables()
	if err != nil && !unsupported(err) {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	var names []string
	for _, t := range all {
		if t.Name != cutTable {
			names = append(names, t.Name)
		}
	}
	return names, nil
}

func unsupported(err error) bool {
	return errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL)
}
