package netlock

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
)

// in runs a shell in a network namespace.
func in(t *testing.T, ns *os.File, script string) string {
	t.Helper()
	var out []byte
	err := netns.Do(ns, func() (err error) {
		out, err = exec.CommandContext(context.Background(), "sh", "-ec", script).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// What CRIU does to lock (criu/net.c, criu/netfilter.c), in the words of the programs.
const (
	lockIptables = `
for family in iptables ip6tables; do
	$family-$1-restore --noflush <<-EOT
		*filter
		:CRIU - [0:0]
		-I INPUT -j CRIU
		-I OUTPUT -j CRIU
		-A CRIU -m mark --mark 0xC114 -j ACCEPT
		-A CRIU -j DROP
		COMMIT
	EOT
done
`
	lockNftables = `
nft -f - <<-EOT
	create table inet CRIU-4711
	add chain inet CRIU-4711 output { type filter hook output priority 0; policy drop; }
	add rule inet CRIU-4711 output meta mark 0xC114 accept
	add chain inet CRIU-4711 input { type filter hook input priority 0; policy drop; }
EOT
`
)

func TestLockedNamespaceIsOpenAgainAndKeepsItsOwnRules(t *testing.T) {
	testutil.Root(t)
	testutil.Command(t, "ip")
	locks := []struct{ name, needs, lock, rules string }{
		{"iptables-nft", "iptables-nft-restore", "set -- nft;" + lockIptables, "iptables-nft-save; ip6tables-nft-save"},
		{"iptables-legacy", "iptables-legacy-restore", "set -- legacy;" + lockIptables, "iptables-legacy-save; ip6tables-legacy-save"},
		{"nftables", "nft", lockNftables, "nft list ruleset"},
	}
	for _, l := range locks {
		t.Run(l.name, func(t *testing.T) {
			testutil.Command(t, l.needs)
			ns, err := netns.New()
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			in(t, ns, "ip link set lo up")
			if strings.HasPrefix(l.name, "iptables") {
				in(t, ns, strings.TrimSuffix(l.needs, "-restore")+" -A INPUT -p tcp --dport 4711 -j ACCEPT")
			} else {
				in(t, ns, "nft add table inet mine")
			}
			before := in(t, ns, l.rules)
			in(t, ns, l.lock)
			if !reachable(t, ns, false) {
				t.Fatal("the lock does not lock")
			}
			for range 2 {
				if err := Clear(t.Context(), ns); err != nil {
					t.Fatal(err)
				}
			}
			if !reachable(t, ns, true) {
				t.Error("still locked")
			}
			if after := in(t, ns, l.rules); rulesOnly(after) != rulesOnly(before) {
				t.Errorf("rules before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// reachable pings the loopback and compares.
func reachable(t *testing.T, ns *os.File, want bool) bool {
	t.Helper()
	out := in(t, ns, "busybox ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1 && echo yes || echo no")
	return (out == "yes\n") == want
}

// rulesOnly leaves out dates, counters, and the empty tables that iptables makes when it looks.
func rulesOnly(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "*") && !strings.HasPrefix(line, "COMMIT") &&
			(!strings.HasPrefix(line, ":") || strings.Contains(line, chain)) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestNamespaceWithoutRulesIsNoError(t *testing.T) {
	testutil.Root(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := Clear(t.Context(), ns); err != nil {
		t.Error(err)
	}
}
