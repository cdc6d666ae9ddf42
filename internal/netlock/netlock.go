// Package netlock removes the firewall rules by which CRIU cuts a network namespace off while it saves or makes its
// sockets. CRIU takes them away itself after a success; after a failure, or when it was killed, they stay, and the
// container that runs on is deaf.
package netlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/livemigrate/migrate/internal/sys/netns"
)

// chain is the one that CRIU makes with iptables (criu/net.c, iptables_network_lock_internal).
const chain = "CRIU"

// tablePrefix is what the names of CRIU's nftables tables start with (criu/netfilter.c, nftables_get_table).
const tablePrefix = "CRIU-"

// Clear removes CRIU's rules from the network namespace. None there is no error. It needs CAP_NET_ADMIN in the namespace.
func Clear(ctx context.Context, ns *os.File) error {
	if err := clearNftables(ns); err != nil {
		return fmt.Errorf("remove criu's network lock: %w", err)
	}
	if err := clearLegacy(ctx, ns); err != nil {
		return fmt.Errorf("remove criu's network lock: %w", err)
	}
	return nil
}

// clearNftables covers CRIU's own tables, and the chains that today's iptables (iptables-nft) makes for it.
func clearNftables(ns *os.File) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	tables, err := conn.ListTables()
	if unsupported(err) {
		return nil // no nftables in this kernel, so no rules
	}
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, table := range tables {
		if strings.HasPrefix(table.Name, tablePrefix) {
			conn.DelTable(table)
		}
	}
	chains, err := conn.ListChains()
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	for _, lock := range chains {
		if lock.Name == chain && lock.Table.Name == "filter" {
			if err := deleteChain(conn, lock, chains); err != nil {
				return err
			}
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("change nftables: %w", err)
	}
	return nil
}

// deleteChain deletes the jumps to the chain first: the kernel refuses to delete a chain in use.
func deleteChain(conn *nftables.Conn, lock *nftables.Chain, chains []*nftables.Chain) error {
	for _, from := range chains {
		if from.Table.Name != lock.Table.Name || from.Table.Family != lock.Table.Family {
			continue
		}
		rules, err := conn.GetRules(from.Table, from)
		if err != nil {
			return fmt.Errorf("list rules of nftables chain %s: %w", from.Name, err)
		}
		for _, rule := range rules {
			if !jumpsTo(rule, lock.Name) {
				continue
			}
			if err := conn.DelRule(rule); err != nil {
				return fmt.Errorf("delete rule of nftables chain %s: %w", from.Name, err)
			}
		}
	}
	conn.FlushChain(lock)
	conn.DelChain(lock)
	return nil
}

func jumpsTo(rule *nftables.Rule, name string) bool {
	for _, e := range rule.Exprs {
		if verdict, ok := e.(*expr.Verdict); ok && verdict.Chain == name {
			return true
		}
	}
	return false
}

// clearLegacy covers the older iptables, whose tables the kernel's nftables do not show. There is no netlink for them.
func clearLegacy(ctx context.Context, ns *os.File) error {
	for _, family := range []struct{ names, restore string }{
		{"/proc/thread-self/net/ip_tables_names", "iptables-legacy-restore"},
		{"/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy-restore"},
	} {
		err := netns.Do(ns, func() error {
			names, err := os.ReadFile(family.names)
			if err != nil || !bytes.Contains(names, []byte("filter")) {
				return nil //nolint:nilerr // the module is not loaded, or the table not made: no rules
			}
			return restoreLegacy(ctx, family.restore)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// restoreLegacy deletes the jumps and the chain, when the chain is there. The child inherits the thread's namespace.
func restoreLegacy(ctx context.Context, program string) error {
	if _, err := exec.LookPath(program); err != nil {
		return nil //nolint:nilerr // CRIU could not have used it
	}
	save := exec.CommandContext(ctx, strings.TrimSuffix(program, "-restore")+"-save", "-t", "filter")
	rules, err := save.Output()
	if err != nil {
		return fmt.Errorf("list legacy iptables rules: %w", err)
	}
	if !bytes.Contains(rules, []byte("\n:"+chain+" ")) {
		return nil
	}
	var script bytes.Buffer
	script.WriteString("*filter\n")
	for line := range strings.SplitSeq(string(rules), "\n") {
		if jump, ok := strings.CutPrefix(line, "-A "); ok && strings.HasSuffix(jump, "-j "+chain) {
			script.WriteString("-D " + jump + "\n")
		}
	}
	script.WriteString("-F " + chain + "\n-X " + chain + "\nCOMMIT\n")
	restore := exec.CommandContext(ctx, program, "--noflush")
	restore.Stdin = &script
	if out, err := restore.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", program, err, bytes.TrimSpace(out))
	}
	return nil
}

func unsupported(err error) bool {
	return errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EINVAL)
}
