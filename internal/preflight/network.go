package preflight

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/runtime"
)

// Network records the network namespace that a container was given by its path, or has with a link of ours, and tells what of it
// cannot move. The record is nil for a container whose namespace CRIU saves, or which has its host's.
func Network(c *runtime.Container, s *Subject) (*netspace.Record, Findings, error) {
	plan := c.Plan()
	path := plan.NamespacePath(specs.NetworkNamespace)
	if s.Host || path == "" && (plan.Network == nil || plan.Private(specs.UserNamespace)) {
		return nil, nil, nil
	}
	ns, err := netns.OfProcess(s.Init)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil // it has just ended, which others tell
	}
	if err != nil {
		return nil, nil, err
	}
	defer ns.Close()
	var f Findings
	if path == "" {
		record, left, err := netspace.Read(ns, "")
		f.addLeft(left, "set it again at the peer")
		return record, f, err
	}
	if netspace.OfProcess(path) {
		f.add(Blocker, NetworkNamespace, "give it a namespace with a name: ip netns add, or an engine that makes one",
			"its network namespace is named by %s, a process that the peer does not have", path)
	}
	f.judgeCut()
	record, left, err := netspace.Read(ns, path)
	if err != nil {
		return nil, nil, err
	}
	f.addLeft(left, "have the peer's --network-hook make it")
	others, err := strangers(ns, s.Pids)
	return record, append(f, others...), err
}

// judgeCut finds a kernel that can't keep two hosts from owning an address.
func (f *Findings) judgeCut() {
	if err := netspace.CanCut(); err != nil {
		f.add(Blocker, NetworkNamespace, "use a kernel with CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_EGRESS", "%v", err)
	}
}

// addLeft says what of a namespace is not recorded.
func (f *Findings) addLeft(left []string, cure string) {
	for _, what := range left {
		f.add(Warning, NetworkNamespace, cure, "%s in its network namespace does not move", what)
	}
}

// strangers finds processes outside of the container that use its network namespace: a move would cut them off.
func strangers(ns *os.File, pids []int) (Findings, error) {
	inode, err := netns.Inode(ns)
	if err != nil {
		return nil, err
	}
	own := map[int]bool{}
	for _, pid := range pids {
		own[pid] = true
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	internet := map[string]bool{}
	if err := netns.Do(ns, func() error { internet = internetSockets("/proc/thread-self/net/"); return nil }); err != nil {
		return nil, err
	}
	var f Findings
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || own[pid] {
			continue
		}
		if theirs, err := netns.InodeOfProcess(pid); err != nil || theirs != inode || !hasSocket(pid, internet) {
			continue // gone, elsewhere, or a process that only holds the namespace
		}
		p := &proc{pid: pid}
		if p.readStatus() == nil {
			f = append(f, p.finding(Blocker, NetworkNamespace, "stop it first",
				"uses the container's network namespace and does not move: it would be cut off"))
		}
	}
	return f, nil
}

// internetSockets are those in the network namespace that dir tells of, as links in /proc name them.
func internetSockets(dir string) map[string]bool {
	all := map[string]bool{}
	for _, s := range internet(dir) {
		if s.inode != "0" {
			all["socket:["+s.inode+"]"] = true
		}
	}
	return all
}

func hasSocket(pid int, of map[string]bool) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	descriptors, err := os.ReadDir(dir)
	if err != nil {
		return false // gone
	}
	for _, d := range descriptors {
		if to, err := os.Readlink(filepath.Join(dir, d.Name())); err == nil && of[to] {
			return true
		}
	}
	return false
}
