package identity

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// namespace makes a network namespace with a name on the host, on br0, as an engine does.
func (w *world) namespace(h *lab.Host, name string, addresses ...string) {
	w.t.Helper()
	script := `set -e
		ip netns add "$1"; ip link add "v$1" mtu 1400 type veth peer name eth0 netns "$1"
		ip link set "v$1" mtu 1400 master br0 up; ip -n "$1" link set lo up
		name=$1; shift
		ip netns exec "$name" sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv4.conf.eth0.rp_filter=2 net.core.somaxconn=999
		ip -n "$name" link set eth0 mtu 1400 up
		for address; do ip -n "$name" addr add "$address" dev eth0; done`
	w.exec(h, append([]string{"sh", "-c", script, "-", name}, addresses...)...)
}

func (w *world) exec(h *lab.Host, args ...string) string {
	w.t.Helper()
	out, err := h.Run(w.ctx, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// edit changes a bundle's config.json.
func (w *world) edit(h *lab.Host, bundle string, change func(config map[string]any)) {
	w.t.Helper()
	path := h.Path(bundle + "/config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	config := map[string]any{}
	if err := json.Unmarshal(text, &config); err != nil {
		w.t.Fatal(err)
	}
	change(config)
	if text, err = json.Marshal(config); err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// inNamespace has a container join the network namespace at the path, instead of having its own; the host's with "".
func inNamespace(path string) func(map[string]any) {
	return func(config map[string]any) {
		linux := config["linux"].(map[string]any)
		var kept []any
		for _, ns := range linux["namespaces"].([]any) {
			if ns.(map[string]any)["type"] != "network" {
				kept = append(kept, ns)
			}
		}
		if path != "" {
			kept = append(kept, map[string]any{"type": "network", "path": path})
		}
		linux["namespaces"] = kept
	}
}

// network is all that shows of a namespace's network from inside.
func (w *world) network(h *lab.Host, name string) string {
	w.t.Helper()
	return w.exec(h, "sh", "-c", `
		ip -n "$1" -o -br link | sed 's/@[^ ]*//'; ip -n "$1" -o -br addr | sed 's/@[^ ]*//'
		ip -n "$1" route show table all | grep -v '^local\|^broadcast'; ip -n "$1" -6 route show table all | grep -v '^local\|^multicast'
		ip -n "$1" rule; ip -n "$1" -6 rule; ip -n "$1" neigh show nud permanent
		ip netns exec "$1" sysctl net.ipv4.conf.eth0.rp_filter net.ipv6.conf.eth0.accept_dad net.core.somaxconn net.ipv4.ip_forward`, "-", name)
}

// startRedis runs one as "web".
func (w *world) startRedis(h *lab.Host, config func(map[string]any), args ...string) {
	w.t.Helper()
	if err := h.Bundle(w.ctx, "redis", "/srv/bundles/web"); err != nil {
		w.t.Fatal(err)
	}
	if config != nil {
		w.edit(h, "/srv/bundles/web", config)
	}
	run := append([]string{"migrate", "run", "--detach", "--log-file", "/srv/web.log", "--bundle", "/srv/bundles/web"}, args...)
	if err := h.Start(w.ctx, append(run, "web")...); err != nil {
		w.t.Fatal(err)
	}
}

// TestNamespaceByPathComesAlong: what an engine has set up is there again, at the same path, and the connections go on.
func TestNamespaceByPathComesAlong(t *testing.T) {
	w := newWorld(t, 5*time.Minute, "--network-hook", "/srv/network-hook")
	for _, h := range []*lab.Host{w.A, w.B} {
		w.exec(h, "install", filepath.Join(lab.Repo(), "tests/identity/testdata/network-hook"), "/srv/network-hook")
	}
	for _, c := range []struct {
		name string
		move func()
	}{
		{"on a bridge", w.bridgedNamespace},
		{"by a hook", w.hookedNamespace},
		{"with another address", w.renumberedNamespace},
		{"the host's own", w.hostsNetwork},
		{"when keepers are killed", w.killedKeepers},
		{"prepared by an engine", w.preparedNamespace},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			c.move()
		})
	}
}

func (w *world) bridgedNamespace() {
	w.namespace(w.A, "web", "10.77.0.100/24", "fd77::100/64")
	w.exec(w.A, "sh", "-ec", `ip -n web route add default via 10.77.0.1; ip -n web -6 route add default via fd77::1
		ip -n web route add 10.9.0.0/16 via 10.77.0.2 table 77 metric 5; ip -n web rule add from 10.9.9.9 table 77 priority 100
		ip -n web -6 rule add from fd99::/64 table 78 priority 101; ip -n web route add blackhole 10.8.0.0/16
		ip -n web neigh add 10.77.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent; ip -n web addr add 10.5.5.5/32 dev lo`)
	w.startRedis(w.A, inNamespace("/run/netns/web"))
	before := w.network(w.A, "web")
	client, client6 := w.converse("10.77.0.100:6379", "n"), w.converse("[fd77::100]:6379", "m")
	from, to, away := w.A, w.B, 0.0
	for range 3 { // to a host that never had it, back to one that has kept it, and once more
		away = max(away, w.push(from, to, "web").DowntimeMS)
		w.unharmed(client, client6)
		if after := w.network(to, "web"); after != before {
			w.t.Fatalf("on %s the network is\n%s\nand was\n%s", to.Name, after, before)
		}
		from, to = to, from
	}
	if left := w.exec(w.B, "migrate", "delete", "--force", "web") + w.exec(w.B, "ip", "netns", "list"); left != "" {
		w.t.Errorf("what a move has made stays at its host: %s", left)
	}
	w.exec(w.A, "ip", "netns", "del", "web") // what an engine has made is its own to remove
	figure("network namespace by path", "3 moves, %d answers over IPv4 and %d over IPv6; addresses, MAC, MTU, routes, rules, sysctls the same; away %.0f ms at most",
		client.Answers(), client6.Answers(), away)
}

// hookedNamespace is on no bridge, so that only the operator knows how it is connected.
func (w *world) hookedNamespace() {
	w.exec(w.A, "sh", "-ec", `ip netns add web; ip link add link br0 name mv0 type macvlan mode bridge
		ip link set mv0 netns web name eth0; ip -n web link set lo up; ip -n web link set eth0 up
		ip -n web addr add 10.77.0.102/24 dev eth0; ip -n web route add default via 10.77.0.3`)
	w.startRedis(w.A, inNamespace("/run/netns/web"))
	client := w.converse("10.77.0.102:6379", "n")
	without, err := w.B.Serve(w.ctx, "tls://"+w.B.IP+":7441")
	if err != nil {
		w.t.Fatal(err)
	}
	w.refused(4, "--network-hook", w.A, "web", "tls://"+w.B.IP+":7441")
	without.Stop()

	w.exec(w.B, "sh", "-ec", `mv /srv/network-hook /srv/good
		printf '#!/bin/sh\n[ "$1" != add ] || { echo no port is free >&2; exit 3; }\nexec /srv/good "$@"' >/srv/network-hook; chmod +x /srv/network-hook`)
	w.refused(1, "no port is free", w.A, "web", w.tls(w.B))
	w.exec(w.B, "timeout", "10", "sh", "-ec", `until grep -q "^del web" /run/network-hook.log && [ -z "$(ip netns list)" ]; do sleep 0.05; done
		mv /srv/good /srv/network-hook; rm /run/network-hook.log`)
	w.unharmed(client)
	w.exec(w.A, "rm", "-f", "/run/network-hook.log") // of the moves before

	w.push(w.A, w.B, "--network-hook", "/srv/network-hook", "web")
	w.unharmed(client)
	if told := w.exec(w.B, "cat", "/run/network-hook.log"); told != "add web creating\nopen web creating" {
		w.t.Errorf("the peer's hook was told %q", told)
	}
	if told := w.exec(w.A, "cat", "/run/network-hook.log"); told != "del web stopped" {
		w.t.Errorf("the source's hook was told %q", told)
	}
	figure("--network-hook", "a macvlan made by the worked example: %d answers over its connection; refused without a hook, rolled back with one that fails", client.Answers())
	w.exec(w.B, "migrate", "delete", "--force", "web")
	w.exec(w.A, "ip", "netns", "del", "web")
}

// renumberedNamespace gets another address of the peer's hook: its connections from the old one end, and nothing else does.
func (w *world) renumberedNamespace() {
	w.exec(w.A, "sh", "-ec", `ip netns add web; ip link add link br0 name mv0 type macvlan mode bridge
		ip link set mv0 netns web name eth0; ip -n web link set lo up; ip -n web link set eth0 up; ip -n web addr add 10.77.0.106/24 dev eth0`)
	w.startSockets(w.A, inNamespace("/run/netns/web"), nil)
	conn, err := w.C.Dial(w.ctx, "10.77.0.106:7000")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	w.exec(w.B, "sh", "-ec", `mv /srv/network-hook /srv/good
		printf '#!/bin/sh\n/srv/good "$@" || exit; [ "$1" != add ] || ip -n web addr add 10.77.0.107/24 dev eth0; ip -n web link set lo up; ip -n web link set eth0 up' >/srv/network-hook
		chmod +x /srv/network-hook`)
	move := w.push(w.A, w.B, "web")
	w.exec(w.B, "mv", "/srv/good", "/srv/network-hook")
	if !strings.Contains(strings.Join(move.Warnings, "; "), "10.77.0.106 does not come along") {
		w.t.Errorf("push warns of %q", move.Warnings)
	}
	if _, err := w.ask("10.77.0.107:7000", "check"); err != nil {
		w.t.Fatal(err)
	}
	if left := w.exec(w.B, "sh", "-c", "nsenter -t $(migrate state web | jq .pid) -n ss -Htn | grep -c 10.77.0.106 || true"); left != "0" {
		w.t.Errorf("%s connections from the old address are there", left)
	}
	figure("--network-hook that gives another address", "connections from the old one are closed, those over the loopback and unix sockets go on; push says so")
	w.exec(w.B, "migrate", "delete", "--force", "web")
	w.exec(w.A, "ip", "netns", "del", "web")
}

// killedKeepers leave nothing cut off that should not be, and nothing behind.
func (w *world) killedKeepers() {
	w.namespace(w.A, "web", "10.77.0.108/24")
	w.startRedis(w.A, inNamespace("/run/netns/web"))
	client := w.converse("10.77.0.108:6379", "n")
	kill := func(pids []int) {
		w.t.Helper()
		if len(pids) == 0 {
			w.t.Fatal("no keeper is there")
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	for _, c := range []struct {
		phase string
		host  *lab.Host
	}{{"precopy", w.B}, {"restore", w.A}} {
		move, err := w.A.Push(w.ctx, "--retry", "0", "web", w.tls(w.B))
		if err != nil {
			w.t.Fatal(err)
		}
		if !move.Until(c.phase) {
			w.t.Fatalf("it has ended before %s: %s", c.phase, move.Result.Error)
		}
		kill(c.host.Keepers())
		if code, err := move.Wait(time.Minute); code != 1 || err != nil {
			w.t.Fatalf("killed in %s: exit status %d, %v: %s", c.phase, code, err, move.Result.Error)
		}
		w.unharmed(client)
	}
	away := w.push(w.A, w.B, "web").DowntimeMS
	w.unharmed(client)
	if left := w.exec(w.B, "sh", "-c", "ls /run/migrate-handover | grep network; ip netns exec web nft list tables"); left != "" {
		w.t.Errorf("what is left at the peer: %s", left)
	}
	w.exec(w.B, "migrate", "delete", "--force", "web")
	if left := w.exec(w.B, "ip", "netns", "list"); left != "" {
		w.t.Errorf("namespaces at the peer: %s", left)
	}
	w.exec(w.A, "ip", "netns", "del", "web")
	figure("network namespace by path, keepers killed", "at the peer before the stop, at the source in it: connected again, %d answers; then moved, away %.0f ms, nothing left",
		client.Answers(), away)
}

// preparedNamespace is there already with the right address, on either host: of two owners only one may ever answer.
func (w *world) preparedNamespace() {
	w.namespace(w.A, "web", "10.77.0.104/24")
	w.startRedis(w.A, inNamespace("/run/netns/web"))
	client := w.converse("10.77.0.104:6379", "n")
	w.namespace(w.B, "web", "10.77.0.105/24")
	w.refused(4, "has no address 10.77.0.104", w.A, "web", w.tls(w.B))
	w.exec(w.B, "sh", "-ec", "ip -n web link set eth0 down; ip -n web addr add 10.77.0.104/24 dev eth0; ip -n web link set eth0 up")
	w.push(w.A, w.B, "web")
	w.unharmed(client)
	if owners := w.owners("10.77.0.104"); owners != 1 {
		w.t.Errorf("%d hosts answer for the address", owners)
	}
	w.exec(w.B, "migrate", "delete", "--force", "web")
	if left := w.exec(w.B, "ip", "netns", "list"); !strings.Contains(left, "web") {
		w.t.Errorf("an engine's namespace was removed: %q", left)
	}
	figure("network namespace of an engine at the peer", "used as it is: %d answers over one connection; refused without the address", client.Answers())
}

func (w *world) converse(address, key string) *lab.Client {
	w.t.Helper()
	c, err := w.Converse(w.ctx, address, "INCR "+key, ":%d")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

func (w *world) unharmed(clients ...*lab.Client) {
	w.t.Helper()
	for _, c := range clients {
		if err := c.Unharmed(10 * time.Second); err != nil {
			w.t.Fatal(err)
		}
	}
}

// refused is a push that ends with the code, and says so.
func (w *world) refused(code int, says string, from *lab.Host, args ...string) {
	w.t.Helper()
	move, err := from.Push(w.ctx, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	got, err := move.Wait(time.Minute)
	if got != code || err != nil || !strings.Contains(move.Result.Error, says) {
		w.t.Fatalf("push %v: exit status %d, %v: %s", args, got, err, move.Result.Error)
	}
}
