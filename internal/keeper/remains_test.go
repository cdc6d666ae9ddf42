package keeper

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/runtime"
)

const testMove = "00112233445566778899aabbccdd0001"

func testPlaces(t *testing.T) Places {
	dir := t.TempDir()
	return Places{Root: filepath.Join(dir, "run"), Journals: filepath.Join(dir, "journal"), Bundles: filepath.Join(dir, "bundles")}
}

// writeState leaves a container behind that has stopped.
func writeState(t *testing.T, p Places, edit func(*runtime.State)) {
	t.Helper()
	plan := &runtime.Plan{Spec: &specs.Spec{Version: specs.Version, Root: &specs.Root{}, Process: &specs.Process{}, Linux: &specs.Linux{}}, Bundle: t.TempDir()}
	state := &runtime.State{Version: 1, ID: "web", Plan: plan}
	edit(state)
	content, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(p.Root, "web")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "state.json"), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeJournal(t *testing.T, p Places, m journal.Move, steps ...journal.Step) {
	t.Helper()
	m.Container, m.Root = "web", p.Root
	j, err := journal.Create(p.Journals, m)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, step := range steps {
		if err := j.Append(step, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// The keeper died, the half-made container was deleted by hand and its id used again: the old journal is no licence to kill.
func TestStaleJournalDoesNotDeleteAnotherContainer(t *testing.T) {
	places := testPlaces(t)
	writeState(t, places, func(s *runtime.State) { s.Arrival = "another move" })
	h := &host{order: &PeerOrder{Places: places}, log: slog.New(slog.DiscardHandler)}
	if err := h.Discard(t.Context(), journal.Move{Name: testMove, Container: "web"}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(places.Root, "web", "state.json")); err != nil {
		t.Error(err)
	}
}

// What could not be read may be a running container.
func TestDiscardLeavesWhatItCannotRead(t *testing.T) {
	places := testPlaces(t)
	writeState(t, places, func(s *runtime.State) { s.Version = 99 })
	h := &host{order: &PeerOrder{Places: places}, log: slog.New(slog.DiscardHandler)}
	if err := h.Discard(t.Context(), journal.Move{Name: testMove, Container: "web"}); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(filepath.Join(places.Root, "web", "state.json")); err != nil {
		t.Error(err)
	}
}

// The record of an end comes before its last deed; a crash in between leaves a frozen container that resolve must find.
func TestResolveFindsAnEndThatWasOnlyRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		steps []journal.Step
		mark  string
		found bool
	}{
		"before COMMIT":                 {nil, testMove, true},
		"done, remains":                 {[]journal.Step{journal.CommitSent, journal.Done}, testMove, true},
		"done":                          {[]journal.Step{journal.CommitSent, journal.Done}, "", false},
		"rolled back, remains":          {[]journal.Step{journal.RolledBack}, testMove, true},
		"rolled back":                   {[]journal.Step{journal.RolledBack}, "", false},
		"rolled back, in a later move":  {[]journal.Step{journal.RolledBack}, "another move", false},
		"in doubt, its container is up": {[]journal.Step{journal.CommitSent}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			places := testPlaces(t)
			writeState(t, places, func(s *runtime.State) { s.Move = c.mark })
			writeJournal(t, places, journal.Move{Name: testMove, Role: journal.Source}, c.steps...)
			o := &ResolveOrder{Places: places, Log: slog.New(slog.DiscardHandler)}
			if _, err := o.find("web"); (err == nil) != c.found || err != nil && !errors.Is(err, ErrNoMove) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The clock of the host may be set back between two moves: the container knows better which one froze it.
func TestResolveFindsTheMoveThatFrozeIt(t *testing.T) {
	places := testPlaces(t)
	writeState(t, places, func(s *runtime.State) { s.Move = testMove })
	writeJournal(t, places, journal.Move{Name: testMove, Role: journal.Source}, journal.CommitSent)
	writeJournal(t, places, journal.Move{Name: "an earlier one", Role: journal.Source}, journal.RolledBack)
	o := &ResolveOrder{Places: places, Log: slog.New(slog.DiscardHandler)}
	if story, err := o.find("web"); err != nil || story.Move.Name != testMove {
		t.Errorf("got %v, %v", story, err)
	}
}

// The frozen container was deleted by hand, and its id used again: the end of the old move is not the end of that.
func TestResolveDoesNotTouchAnotherContainer(t *testing.T) {
	for _, force := range []handover.Force{handover.ForcePeer, handover.ForceSource} {
		places := testPlaces(t)
		writeState(t, places, func(*runtime.State) {})
		writeJournal(t, places, journal.Move{Name: testMove, Role: journal.Source, Peer: "unix:///nowhere", Token: strings.Repeat("00", 32)}, journal.CommitSent)
		o := &ResolveOrder{Places: places, Force: force, Log: slog.New(slog.DiscardHandler)}
		outcome, err := Resolve(t.Context(), "web", o)
		t.Log(outcome, err)
		if _, err := os.Stat(filepath.Join(places.Root, "web", "state.json")); err != nil {
			t.Error(err)
		}
	}
}

// A keeper that died tells nothing; whether the service is down is in the journal of its move, and of no other.
func TestSalvageTellsWhatBecameOfTheMove(t *testing.T) {
	for name, c := range map[string]struct {
		move string
		last journal.Step
		want report.Outcome
	}{
		"it had not begun":      {"ffffffffffffffffffffffffffff0001", journal.CommitSent, report.Kept},
		"it was over":           {testMove, journal.Done, report.Moved},
		"it was undone already": {testMove, journal.RolledBack, report.Kept},
	} {
		t.Run(name, func(t *testing.T) {
			places := testPlaces(t)
			writeJournal(t, places, journal.Move{Name: c.move, Role: journal.Source}, c.last)
			o := &ResolveOrder{Places: places, Log: slog.New(slog.DiscardHandler)}
			got, err := Salvage(t.Context(), &Order{Places: places, Container: "web", Move: testMove[:28]}, o)
			if got != c.want || err != nil {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
}

// A journal that can't be read may be that of the move.
func TestSalvageDoesNotGuess(t *testing.T) {
	places := testPlaces(t)
	writeJournal(t, places, journal.Move{Name: testMove, Role: journal.Source}, journal.CommitSent)
	if err := os.WriteFile(journal.Path(places.Journals, testMove, journal.Source), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := &ResolveOrder{Places: places, Log: slog.New(slog.DiscardHandler)}
	got, err := Salvage(t.Context(), &Order{Places: places, Container: "web", Move: testMove[:28]}, o)
	if got != report.Unknown || !errors.Is(err, handover.ErrOutcomeUnknown) {
		t.Errorf("got %s, %v", got, err)
	}
}

// Certificates are asked for where the peer is.
func TestForceNeedsNoCertificates(t *testing.T) {
	for force, want := range map[handover.Force]error{handover.ForcePeer: nil, handover.NoForce: handover.ErrOutcomeUnknown} {
		places := testPlaces(t)
		move := journal.Move{Name: testMove, Role: journal.Source, Peer: "tls://peer:7440", Token: strings.Repeat("00", 32)}
		writeJournal(t, places, move, journal.CommitSent)
		o := &ResolveOrder{Places: places, Force: force, Log: slog.New(slog.DiscardHandler)}
		if outcome, err := Resolve(t.Context(), "web", o); !errors.Is(err, want) {
			t.Errorf("force %d: got %s, %v", force, outcome, err)
		}
	}
}

// Only the host that holds the frozen copy can act on a force; silence would look like success.
func TestForceIsRefusedAtThePeer(t *testing.T) {
	places := testPlaces(t)
	writeJournal(t, places, journal.Move{Name: testMove, Role: journal.Peer}, journal.Committed)
	o := &ResolveOrder{Places: places, Force: handover.ForcePeer, Log: slog.New(slog.DiscardHandler)}
	if outcome, err := Resolve(t.Context(), "web", o); outcome != report.Unknown || err == nil {
		t.Errorf("got %s, %v", outcome, err)
	}
}
