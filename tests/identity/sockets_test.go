package identity

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/tests/lab"
)

// on runs f in the host's network namespace; sockets that it makes stay there.
func (w *world) on(h *lab.Host, f func() error) {
	w.t.Helper()
	ns, err := netns.OfProcess(h.Holder())
	if err == nil {
		err = errors.Join(netns.Do(ns, f), ns.Close())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// datagrams sends numbered ones to an address from the client's host, and counts those that come back.
type datagrams struct {
	conn       *net.UDPConn
	sent, back atomic.Int64
}

func (w *world) datagrams(address string) *datagrams {
	w.t.Helper()
	d := &datagrams{}
	w.on(w.C, func() error {
		conn, err := net.Dial("udp", address)
		if err == nil {
			d.conn = conn.(*net.UDPConn)
		}
		return err
	})
	w.t.Cleanup(func() { d.conn.Close() })
	go func() {
		for {
			if _, err := fmt.Fprintf(d.conn, "%d", d.sent.Add(1)); errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	go func() {
		for b := make([]byte, 64); ; {
			switch _, err := d.conn.Read(b); {
			case errors.Is(err, net.ErrClosed):
				return
			case err == nil:
				d.back.Add(1)
			}
		}
	}()
	return d
}

// goesOn waits for more of them.
func (d *datagrams) goesOn(t *testing.T) {
	t.Helper()
	const more = 5
	from, deadline := d.back.Load(), time.Now().Add(10*time.Second)
	for d.back.Load() < from+more {
		if time.Now().After(deadline) {
			t.Fatalf("no datagrams come back any more, after %d of %d", d.back.Load(), d.sent.Load())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// sendBack is the other end of a connected socket in the container.
func (w *world) sendBack(address string) {
	w.t.Helper()
	w.on(w.C, func() error {
		conn, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { conn.Close() })
		go func() {
			for b := make([]byte, 64); ; {
				n, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo(b[:n], from)
			}
		}()
		return nil
	})
}

// startSockets runs the workload of that name as "web".
func (w *world) startSockets(h *lab.Host, config func(map[string]any), args []string, run ...string) {
	w.t.Helper()
	if err := h.Bundle(w.ctx, "workload", "/srv/bundles/web", append([]string{"sockets"}, args...)...); err != nil {
		w.t.Fatal(err)
	}
	w.exec(h, "sh", "-ec", `cd /srv/bundles/web/rootfs; mkdir -p etc; echo web.example >etc/hostname; echo "10.77.0.3 client" >etc/hosts
		echo "nameserver 10.77.0.53" >etc/resolv.conf`)
	if config != nil {
		w.edit(h, "/srv/bundles/web", config)
	}
	start := append([]string{"migrate", "run", "--detach", "--log-file", "/srv/web.log", "--bundle", "/srv/bundles/web"}, run...)
	if err := h.Start(w.ctx, append(start, "web")...); err != nil {
		w.t.Fatal(err)
	}
}

// inside is all that shows of the container's network from inside.
func (w *world) inside(h *lab.Host) string {
	w.t.Helper()
	return w.exec(h, "sh", "-c", `pid=$(migrate state web | jq .pid); enter() { nsenter -t "$pid" -n "$@"; }
		enter ip -o -br link | sed 's/@[^ ]*//'; enter ip -o link | grep -o 'eth0.* mtu [0-9]*' | sed 's/@[^ ]*//;s/<.*>//'; enter ip -o -br addr | sed 's/@[^ ]*//'
		enter ip route show table all | grep -v '^local\|^broadcast'; enter ip -6 route show table all | grep -v '^local\|^multicast'
		enter ip rule; enter ip neigh show nud permanent; enter sysctl net.core.somaxconn net.ipv4.conf.eth0.rp_filter net.ipv4.ip_unprivileged_port_start
		nsenter -t "$pid" -u hostname`)
}

// TestSocketsComeAlong: of each kind, with data on the way, and what the container set in its network while it ran.
func TestSocketsComeAlong(t *testing.T) {
	w := newWorld(t, 4*time.Minute)
	w.sendBack(":9000")
	w.startSockets(w.A, func(config map[string]any) {
		config["linux"].(map[string]any)["sysctl"] = map[string]string{"net.core.somaxconn": "777", "net.ipv4.ip_unprivileged_port_start": "80"}
	}, []string{"10.77.0.3:9000"}, "--network", "bridge=br0,address=10.77.0.100/24,address=fd77::100/64,gateway=10.77.0.1,gateway=fd77::1,mac=02:00:00:00:00:64,mtu=1400")
	w.exec(w.A, "sh", "-ec", `enter="nsenter -t $(migrate state web | jq .pid) -n"
		$enter ip route add 10.9.0.0/16 via 10.77.0.2 table 77; $enter ip rule add from 10.9.9.9 table 77 priority 100
		$enter ip neigh add 10.77.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent; $enter sysctl -qw net.ipv4.conf.eth0.rp_filter=2
		$enter ip addr add 10.77.0.109/24 dev eth0`)
	before := w.inside(w.A)
	var talks []*lab.Client
	for _, address := range []string{"10.77.0.100:7000", "[fd77::100]:7000"} {
		c, err := w.Converse(w.ctx, address, "check", "ok %d")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		talks = append(talks, c)
	}
	udp, udp6 := w.datagrams("10.77.0.100:7000"), w.datagrams("[fd77::100]:7000")
	udp.goesOn(t)
	half := w.halfOpen("10.77.0.100:7000")
	away := w.push(w.A, w.B, "web").DowntimeMS
	w.unharmed(talks...)
	udp.goesOn(t)
	udp6.goesOn(t)
	if after := w.inside(w.B); after != before {
		t.Errorf("at the peer its network is\n%s\nand was\n%s", after, before)
	}
	half.completes()
	figure("TCP over IPv4 and IPv6, unix, loopback", "%d and %d checks of stream, datagram and seqpacket with 3 messages on the way: none lost; away %.0f ms",
		talks[0].Answers(), talks[1].Answers(), away)
	figure("UDP over IPv4 and IPv6", "%d of %d and %d of %d datagrams came back, sockets bound and connected",
		udp.back.Load(), udp.sent.Load(), udp6.back.Load(), udp6.sent.Load())
	figure("--network, as set while it ran", "address, route, rule, neighbour, MTU, sysctls, hostname, /etc/hosts, resolv.conf: the same")
	w.waiting()
}

// half is a connection of which the container has seen the first segment, and the client no answer.
type half struct {
	w      *world
	dialed chan error
}

func (w *world) halfOpen(address string) *half {
	w.t.Helper()
	w.exec(w.C, "nft", `add table ip half; add chain ip half in { type filter hook input priority 0; }; add rule ip half in tcp sport 7000 tcp flags & (syn | ack) == syn | ack drop`)
	h := &half{w: w, dialed: make(chan error, 1)}
	go func() {
		ns, err := netns.OfProcess(w.C.Holder())
		if err != nil {
			h.dialed <- err
			return
		}
		defer ns.Close()
		h.dialed <- netns.Do(ns, func() error {
			conn, err := net.DialTimeout("tcp", address, 30*time.Second)
			if err != nil {
				return err
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := fmt.Fprintln(conn, "check"); err != nil {
				return err
			}
			answer, err := bufio.NewReader(conn).ReadString('\n')
			if err == nil && answer != "ok 1\n" {
				err = fmt.Errorf("answer %q", answer)
			}
			return err
		})
	}()
	w.exec(w.A, "timeout", "5", "sh", "-c", `until nsenter -t $(migrate state web | jq .pid) -n ss -Htn state syn-recv | grep -q :7000; do sleep 0.02; done`)
	return h
}

func (h *half) completes() {
	h.w.t.Helper()
	h.w.exec(h.w.C, "nft", "delete table ip half")
	opened := time.Now()
	if err := <-h.dialed; err != nil {
		h.w.t.Fatalf("a connection that was half open at the stop: %v", err)
	}
	figure("half-open connection (SYN_RECV)", "the client's own repetition completed it at the peer, %d ms after it could", time.Since(opened).Milliseconds())
}

// waiting moves a container that does not accept a connection: it is left behind, and its client learns that when it sends.
func (w *world) waiting() {
	w.t.Helper()
	conn, err := w.C.Dial(w.ctx, "10.77.0.100:7001")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "early"); err != nil {
		w.t.Fatal(err)
	}
	w.push(w.B, w.A, "web")
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = fmt.Fprint(conn, "late") // if what it sent before was not acknowledged, it may know already
	if err == nil {
		_, err = conn.Read(make([]byte, 8))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		w.t.Errorf("a connection that nobody accepted: %v, not a reset", err)
	}
	again, err := w.C.Dial(w.ctx, "10.77.0.100:7001")
	if err != nil {
		w.t.Fatal(err)
	}
	defer again.Close()
	if _, err := fmt.Fprint(again, "again"); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.ask("10.77.0.100:7000", "write"); err != nil {
		w.t.Fatal(err)
	}
	_ = again.SetDeadline(time.Now().Add(5 * time.Second))
	answer := make([]byte, 8)
	if n, err := again.Read(answer); err != nil || string(answer[:n]) != "again" {
		w.t.Errorf("the second try: %q, %v", answer[:n], err)
	}
	figure("connection that nobody has accepted", "waited for twice, then left behind: the client is reset when it sends, its next try is served")
}

// ask asks one question on a connection of its own.
func (w *world) ask(address, question string) (string, error) {
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	conn, err := w.C.Dial(ctx, address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(conn, question); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(answer, "ok ") {
		err = fmt.Errorf("answer %q", answer)
	}
	return strings.TrimSpace(answer), err
}
