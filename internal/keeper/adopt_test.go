package keeper

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// writeLock leaves the lock of a feeding that has ended.
func writeLock(t *testing.T, p Places, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.Root, "web", "feeding.lock"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A program that had all its memory may have come to its end since; one that was killed for want of it is not taken for that.
func TestEndOfAContainerWithoutAKeeper(t *testing.T) {
	testutil.Root(t)
	for lock, want := range map[string]error{"fed, all of it\n": wire.ErrPaid, "fed\n": wire.ErrEnded, "": wire.ErrEnded} {
		places := testPlaces(t)
		writeState(t, places, func(s *runtime.State) { s.Arrival = testMove })
		writeLock(t, places, lock)
		h := &host{order: &PeerOrder{Places: places}, log: slog.New(slog.DiscardHandler)}
		if _, err := h.Adopt(t.Context(), journal.Move{Name: testMove, Container: "web"}); !errors.Is(err, want) {
			t.Errorf("with %q in the lock: %v, want %v", lock, err, want)
		}
		if places.busy("web") {
			t.Error("the id is taken still")
		}
	}
}

// While a move of the container goes on nobody adopts it.
func TestAdoptTakesTheID(t *testing.T) {
	places := testPlaces(t)
	lock, err := places.lock("web")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	h := &host{order: &PeerOrder{Places: places}, log: slog.New(slog.DiscardHandler)}
	if _, err := h.Adopt(t.Context(), journal.Move{Name: testMove, Container: "web"}); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("got %v", err)
	}
}

// What has not come here whole is left to the end of its move: it is not lost, and not to be deleted.
func TestRefeedLeavesAnUnfinishedMove(t *testing.T) {
	testutil.Root(t)
	for name, c := range map[string]struct {
		arrival string
		steps   []journal.Step
		lost    bool
	}{
		"before COMMIT":        {testMove, nil, false},
		"committed":            {testMove, []journal.Step{journal.Committed}, false},
		"its source has more":  {testMove, []journal.Step{journal.Committed, journal.Owing}, false},
		"it was given up":      {testMove, []journal.Step{journal.Aborted}, false},
		"it runs here":         {testMove, []journal.Step{journal.Committed, journal.Running}, true},
		"restored from images": {"", nil, true},
		"long ago":             {"another move", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			places := testPlaces(t)
			writeState(t, places, func(s *runtime.State) { s.Arrival = c.arrival })
			writeJournal(t, places, journal.Move{Name: testMove, Role: journal.Peer}, c.steps...)
			writeLock(t, places, "")
			log := slog.New(slog.DiscardHandler)
			fed, err := Refeed(t.Context(), "web", &ResolveOrder{Places: places, Log: log})
			if fed || errors.Is(err, feed.ErrLost) != c.lost || !c.lost && err != nil {
				t.Errorf("got %v, %v", fed, err)
			}
			h := &host{order: &PeerOrder{Places: places}, log: log}
			rt, err := h.open()
			if err != nil {
				t.Fatal(err)
			}
			web, err := rt.Load("web")
			if err != nil {
				t.Fatal(err)
			}
			if err := places.CheckMemory(web, log); errors.Is(err, feed.ErrLost) != c.lost || errors.Is(err, errHalf) == c.lost {
				t.Errorf("it is told %v", err)
			}
		})
	}
}
