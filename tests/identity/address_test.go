package identity

import (
	"testing"
	"time"
)

// TestConnectionAndAddressComeAlong: the least that anyone expects.
func TestConnectionAndAddressComeAlong(t *testing.T) {
	w := newWorld(t, time.Minute)
	if err := w.A.Bundle(w.ctx, "redis", "/srv/bundles/web"); err != nil {
		t.Fatal(err)
	}
	err := w.A.Start(w.ctx, "migrate", "run", "--detach", "--log-file", "/srv/web.log", "--bundle", "/srv/bundles/web",
		"--network", "bridge=br0,address=10.77.0.100/24", "web")
	if err != nil {
		t.Fatal(err)
	}
	client, err := w.Converse(w.ctx, "10.77.0.100:6379", "INCR n", ":%d")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Unharmed(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	moves := 1
	if *long {
		moves = 5
	}
	from, to, away := w.A, w.B, 0.0
	for range moves {
		away = max(away, w.push(from, to, "web").DowntimeMS)
		if err := client.Unharmed(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		from, to = to, from
	}
	figure("IPv4, an established connection", "%d moves, %d answers, none lost or out of order; away %.0f ms at most",
		moves, client.Answers(), away)
}
