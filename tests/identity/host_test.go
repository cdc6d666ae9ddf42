package identity

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"time"
)

// hostsNetwork stays with its address, so that connections could only hang: they end, and who has them is said before.
func (w *world) hostsNetwork() {
	t := w.t
	w.startSockets(w.A, inNamespace(""), nil)
	conn, err := w.C.Dial(w.ctx, w.A.IP+":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w.refused(4, "does not have", w.A, "--tcp-established", "web", w.tls(w.B))
	result := w.push(w.A, w.B, "web")
	if said := strings.Join(result.Warnings, "; "); !strings.Contains(said, "TCP connections, which the move closes") || !strings.Contains(said, "(workload)") {
		t.Errorf("push warns of %q", said)
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 8)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads %d bytes, %v: it should be told", n, err)
	}
	answer, err := w.ask(w.B.IP+":7000", "check")
	if err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("its connection over the host's loopback: %q, %v", answer, err)
	}
	if rules := w.exec(w.A, "sh", "-c", "iptables-save | grep -ci criu; nft list tables | grep -ci criu || true"); rules != "0\n0" {
		t.Errorf("rules at the source: %q", rules)
	}
	figure("host network", "connections are closed, with a warning that names their process; the client is told, and served by the peer's address")
	w.exec(w.B, "migrate", "delete", "--force", "web")
}
