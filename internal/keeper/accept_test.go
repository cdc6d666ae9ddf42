package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/filesync"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

func newPlace(t *testing.T, edit func(*place)) *place {
	dir := t.TempDir()
	h := &host{order: &PeerOrder{Places: Places{Root: filepath.Join(dir, "run"), Bundles: filepath.Join(dir, "bundles")}}, log: slog.New(slog.DiscardHandler)}
	p := &place{
		host:     h,
		bundle:   filepath.Join(dir, "bundles", "web"),
		hello:    &wire.Hello{Container: "web", Machine: machine(), Trees: []*wire.Tree{{Name: "rootfs"}}},
		spec:     &specs.Spec{Root: &specs.Root{}, Linux: &specs.Linux{}},
		identity: &identity{},
		targets:  map[int]*filesync.Target{},
	}
	edit(p)
	var err error
	if p.runtime, err = h.open(); err != nil {
		t.Fatal(err)
	}
	if p.hello.Config, err = json.Marshal(p.spec); err != nil {
		t.Fatal(err)
	}
	if p.hello.Identity, err = json.Marshal(p.identity); err != nil {
		t.Fatal(err)
	}
	return p
}

// What the peer can't take is said before anything is touched, with the name of the obstacle.
func TestPeerRefusesWhatItCannotTake(t *testing.T) {
	testutil.Root(t)
	_, err := criu.Locate("")
	testutil.Need(t, err == nil, "a CRIU that works: scripts/setup")
	bind := specs.Mount{Destination: "/data", Type: "bind", Source: "/no/such/volume", Options: []string{"rbind"}}
	for name, c := range map[string]struct {
		edit func(*place)
		want error
		says string
	}{
		"nothing wrong":     {func(*place) {}, nil, ""},
		"another processor": {func(p *place) { p.hello.Machine = "s390x" }, wire.ErrIncompatible, "s390x"},
		"no linux section":  {func(p *place) { p.spec.Linux = nil }, wire.ErrIncompatible, "config.json"},
		"missing volume":    {func(p *place) { p.spec.Mounts = []specs.Mount{bind} }, wire.ErrIncompatible, "/no/such/volume"},
		"volume that travels": {func(p *place) {
			p.spec.Mounts = []specs.Mount{bind}
			p.identity.Volumes = []volume{{Mount: 0, Tree: 1}}
			p.hello.Trees = append(p.hello.Trees, &wire.Tree{Name: "volume-1"})
		}, nil, ""},
		"volume of no mount": {func(p *place) {
			p.identity.Volumes = []volume{{Mount: 7}}
			p.hello.Trees = append(p.hello.Trees, &wire.Tree{Name: "volume-1"})
		}, wire.ErrMalformed, "without a mount"},
		"volume twice": {func(p *place) {
			p.spec.Mounts = []specs.Mount{bind}
			p.identity.Volumes = []volume{{Mount: 0}, {Mount: 0}}
		}, wire.ErrMalformed, "without a mount of its own"},
		"volume of no tree": {func(p *place) {
			p.spec.Mounts = []specs.Mount{bind}
			p.identity.Volumes = []volume{{Mount: 0, Tree: 1}}
		}, wire.ErrMalformed, "tree 1 of 1"},
		"volume outside of its tree": {func(p *place) {
			p.spec.Mounts = []specs.Mount{bind}
			p.identity.Volumes = []volume{{Mount: 0, Path: "../../etc"}}
		}, wire.ErrMalformed, "../../etc"},
		"tree of no volume": {func(p *place) {
			p.hello.Trees = append(p.hello.Trees, &wire.Tree{Name: "volume-1"})
		}, wire.ErrMalformed, "volumes"},
		"disk too small":      {func(p *place) { p.hello.Trees[0].Bytes = 1 << 60 }, wire.ErrNoSpace, "are free"},
		"log in no directory": {func(p *place) { p.identity.LogFile = "/no/such/directory/log" }, wire.ErrIncompatible, "/no/such/directory/log"},
		"memory too small":    {func(p *place) { p.hello.Needs = &wire.Needs{Memory: 1 << 60} }, wire.ErrNoSpace, "available here"},
		"a newer CRIU":        {func(p *place) { p.hello.CriuVersion = 990000 }, wire.ErrIncompatible, "99.0.0"},
		"no such bridge": {func(p *place) {
			p.identity.Network = &runtime.Network{Bridge: "no-such-bridge", Addresses: []string{"10.0.0.1/24"}}
		}, wire.ErrIncompatible, "no-such-bridge"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, c.edit)
			_, err := p.look(t.Context())
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatalf("look: %v, want %v", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("look: %q does not say %q", err, c.says)
			}
			if _, err := os.Stat(p.host.order.Bundles); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a look leaves something: %v", err)
			}
		})
	}
}

// The user mends everything at once.
func TestPeerNamesEveryObstacle(t *testing.T) {
	testutil.Root(t)
	_, err := newPlace(t, func(p *place) {
		p.hello.Machine = "s390x"
		p.identity.LogFile = "/no/such/directory/log"
		p.spec.Mounts = []specs.Mount{{Destination: "/data", Type: "bind", Source: "/no/such/volume"}}
	}).look(t.Context())
	var codes []string
	for _, f := range wire.Blockers(wire.FindingsOf(wire.NewFailure(err).Err())) {
		codes = append(codes, f.GetCode())
	}
	for _, code := range []preflight.Code{preflight.Machine, preflight.LogFile, preflight.BindMount} {
		if !slices.Contains(codes, string(code)) {
			t.Errorf("%s is not among %v", code, codes)
		}
	}
}

// An earlier move may lack memory that never came, and its id have been used again since.
func TestStaleDebtDoesNotGiveTheIDAway(t *testing.T) {
	testutil.Root(t)
	_, err := criu.Locate("")
	testutil.Need(t, err == nil, "a CRIU that works: scripts/setup")
	p := newPlace(t, func(p *place) { p.host.order.Journals = filepath.Join(t.TempDir(), "journal") })
	places := p.host.order.Places
	writeState(t, places, func(s *runtime.State) { s.Arrival = "another move" })
	writeJournal(t, places, journal.Move{Name: testMove, Role: journal.Peer}, journal.Committed, journal.Owing)
	if _, err := p.look(t.Context()); !errors.Is(err, wire.ErrExists) {
		t.Errorf("look: %v", err)
	}
	if _, _, err := p.host.Reserve(t.Context(), p.hello); !errors.Is(err, wire.ErrExists) {
		t.Errorf("reserve: %v", err)
	}
	if _, err := os.Stat(p.bundle); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its bundle was touched: %v", err)
	}
}

func TestTwoMovesOfOneContainerDoNotMeet(t *testing.T) {
	h := newPlace(t, func(*place) {}).host
	first, err := h.order.lock("web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.order.lock("web"); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("second move: %v, want ErrBusy", err)
	}
	if other, err := h.order.lock("db"); err != nil {
		t.Errorf("another container's move: %v", err)
	} else {
		_ = other.Close()
	}
	_ = first.Close()
	again, err := h.order.lock("web")
	if err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
	_ = again.Close()
	if left, _ := filepath.Glob(filepath.Join(h.order.run(), "*.lock")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A move whose source is away keeps nobody out.
func TestMoveThatWaitsForItsSourceMakesRoom(t *testing.T) {
	h := newPlace(t, func(*place) {}).host
	first, err := h.order.claim(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.order.claim(t.Context(), "web"); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("while it is at work: %v, want ErrBusy", err)
	}
	ctx, back := context.WithCancel(t.Context())
	back()
	if first.yield(ctx) {
		t.Error("it makes room for nobody")
	}
	yielded := make(chan bool)
	go func() {
		yes := first.yield(t.Context())
		_ = first.Close()
		yielded <- yes
	}()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		second, err := h.order.claim(t.Context(), "web")
		if err == nil {
			_ = second.Close()
			break
		}
		if time.Since(begun) > 5*time.Second {
			t.Fatal(err)
		}
	}
	if !<-yielded {
		t.Error("the id was taken from a move that keeps it")
	}
}

// Whoever was slow to notice that it has given an id up writes nothing into the file of the next owner.
func TestMoveThatMadeRoomLeavesTheNextOwnerAlone(t *testing.T) {
	h := newPlace(t, func(*place) {}).host
	first, err := h.order.lock("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(first.file.Name()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.file.Close() }()
	next, err := h.order.lock("web")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	yielded := make(chan bool)
	go func() { yielded <- first.yield(ctx) }()
	if _, err := h.order.claim(ctx, "web"); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	if text, err := os.ReadFile(next.file.Name()); err != nil || len(text) > 0 {
		t.Errorf("it has %q, %v", text, err)
	}
	if <-yielded {
		t.Error("it makes room for somebody else's claim")
	}
}
