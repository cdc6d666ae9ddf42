package keeper

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/internal/wire"
)

func TestCRIUVersionsAreComparedByRelease(t *testing.T) {
	for _, c := range []struct {
		ours, theirs string
		older        bool
	}{
		{"4.2.1", "4.2.1", false},
		{"4.2", "4.2.1", false},
		{"4.1.1", "4.2", true},
		{"4.2", "3.19.1", false},
		{"3.17.1", "4.2.1", true},
		{"4.2", "unknown", false},
	} {
		ours, theirs := preflight.ParseVersion(c.ours), preflight.ParseVersion(c.theirs)
		if ours.OlderThan(theirs) != c.older {
			t.Errorf("%v older than %v: want %v", ours, theirs, c.older)
		}
	}
	if got := preflight.ParseVersion("4.2.1"); got != 40201 || got.String() != "4.2.1" {
		t.Errorf("got %d, %v", got, got)
	}
}

// A peer that could not restore the container, or not run it for long, says so before anything is touched.
func TestPeerRefusesByItsCRIUAndProcessor(t *testing.T) {
	testutil.Root(t)
	path, err := criu.Locate("")
	testutil.Need(t, err == nil, "criu")
	client, err := criu.Start(t.Context(), &criu.StartOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p := newPlace(t, func(*place) {})
	facts := p.host.order.askCRIU(t.Context(), client, slog.New(slog.DiscardHandler))
	if facts.version == 0 || len(facts.cpuinfo) == 0 {
		t.Fatalf("got %+v", facts)
	}
	for range 2 { // the second time from what was kept
		p.hello.Cpuinfo, p.hello.CriuVersion = facts.cpuinfo, uint32(facts.version)
		if v, found, err := p.lookAtCRIU(t.Context()); err != nil || v != facts.version || found.Blocked() {
			t.Errorf("this host refuses itself: %v, %v, %v", v, found, err)
		}
	}
	for name, edit := range map[string]func(){
		"another processor": func() { p.hello.Cpuinfo = facts.cpuinfo[:len(facts.cpuinfo)/2] },
		"older criu":        func() { p.hello.CriuVersion = uint32(facts.version) + 100 },
		"no criu":           func() { p.host.order.CRIU = "/no/such/criu" },
	} {
		p.hello.Cpuinfo, p.hello.CriuVersion = facts.cpuinfo, uint32(facts.version)
		edit()
		if _, found, err := p.lookAtCRIU(t.Context()); err != nil || !errors.Is(found.Refusal(), wire.ErrIncompatible) {
			t.Errorf("%s: %v, %v, want ErrIncompatible", name, found, err)
		}
		p.host.order.CRIU = ""
	}
}
