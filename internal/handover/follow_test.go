package handover

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// The container runs at the peer before its memory is there, and the source is given up when all of it is.
func TestMemoryFollowsTheContainer(t *testing.T) {
	for _, mode := range []Mode{PostCopy, Hybrid} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.link, w.mode = newCable(-1), mode
			m := newTwinMemory(w, 40, 20, 10)
			result := w.push(t.Context(), true)
			if result.Outcome != report.Moved || result.Error != "" || result.Mode != string(mode) || len(result.Warnings) > 0 {
				t.Fatalf("got %+v", result)
			}
			if _, ok := result.Phases[report.Follow]; !ok || (m.passes > 0) != (mode == Hybrid) {
				t.Errorf("%d rounds, %+v", m.passes, result.Phases)
			}
			if source, peer := w.states(); source != absent || peer != running || m.closed != 1 {
				t.Errorf("source %s, peer %s, memory closed %d times", source, peer, m.closed)
			}
			if w.store.pages != m.pages {
				t.Errorf("the peer has %v, want %v", w.store.pages, m.pages)
			}
			if said := slices.Index(w.steps, "say moved"); said < 0 || said > slices.Index(w.steps, "follow") {
				t.Errorf("whoever watches it learns of the move when all of its memory has come: %v", w.steps)
			}
			if got := w.story(journal.Peer); got != "begin committed owing running" {
				t.Errorf("peer's journal: %s", got)
			}
		})
	}
}

// The link is cut after every possible number of control frames: nothing is given up before the last page is at the peer, and
// nobody waits for ever.
func TestLinkCutAnywhereWhileMemoryFollowsLosesNothing(t *testing.T) {
	for _, mode := range []Mode{PostCopy, Hybrid} {
		for _, reachable := range []bool{true, false} {
			for cut := range 30 {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.mode = mode
					m := newTwinMemory(w, 40, 20, 10)
					cutOnce(t, w, cut, reachable)
					if _, peer := w.states(); peer == running && w.store.pages != m.pages {
						t.Errorf("cut %d: the peer has %v, want %v", cut, w.store.pages, m.pages)
					}
				})
			}
		}
	}
}

// Data lanes break too, and in the middle of something.
func TestLinkCutBetweenPagesLosesNothing(t *testing.T) {
	for after := range 40 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.link, w.mode = newCable(-1), PostCopy
			m := newTwinMemory(w, 0)
			w.link.dataCutAfter = after + 1
			result := w.push(t.Context(), true)
			synctest.Wait()
			source, peer := w.states()
			switch {
			case result.Outcome == report.Kept && source == running && peer == absent:
			case result.Outcome == report.Moved && source == absent && peer == running && w.store.pages == m.pages:
			default:
				t.Errorf("cut %d: source %s, peer %s, %+v", after, source, peer, result)
			}
		})
	}
}

// A source that can't send any more keeps what it has, and another process goes on.
func TestResolveSendsWhatIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link, w.mode, w.failAt = newCable(-1), PostCopy, "follow"
		m := newTwinMemory(w, 0)
		result := w.push(t.Context(), true)
		if source, _ := w.states(); result.Outcome != report.Unknown || source != frozen {
			t.Fatalf("source %s, %+v", source, result)
		}
		for _, reachable := range []bool{false, true} { // in the latter case it still can't be sent
			if outcome, err := w.resolve(reachable, NoForce); outcome != report.Unknown || !errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("%s, %v", outcome, err)
			}
		}
		w.failAt = ""
		if outcome, err := w.resolve(true, NoForce); outcome != report.Moved || err != nil {
			t.Errorf("%s, %v", outcome, err)
		}
		if source, peer := w.states(); source != absent || peer != running || w.store.pages != m.pages || !w.reached("remainder") {
			t.Errorf("source %s, peer %s with %v, want %v", source, peer, w.store.pages, m.pages)
		}
	})
}

// The peer's process is gone, the one that the source reaches next takes the rest.
func TestAnotherProcessAtThePeerTakesWhatIsOwed(t *testing.T) {
	for _, failAt := range []string{"", "adopt"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.link, w.mode, w.failAt = newCable(-1), PostCopy, "follow"
			m := newTwinMemory(w, 0)
			if result := w.push(t.Context(), true); result.Outcome != report.Unknown {
				t.Fatalf("%+v", result)
			}
			synctest.Wait()
			_ = w.receive.journal.Close() // as a kill does
			w.desk, w.failAt = w.newDesk(), failAt
			outcome, err := w.resolve(true, NoForce)
			source, peer := w.states()
			if failAt != "" {
				if outcome != report.Unknown || !errors.Is(err, wire.ErrOwed) || source != frozen {
					t.Errorf("nobody can take it: source %s, %s, %v", source, outcome, err)
				}
				w.store.debt.pay()
				return
			}
			synctest.Wait()
			if outcome != report.Moved || err != nil || source != absent || peer != running || w.store.pages != m.pages {
				t.Errorf("%s, %v; source %s, peer %s with %v, want %v", outcome, err, source, peer, w.store.pages, m.pages)
			}
			if !w.reached("finish adopted") || w.story(journal.Peer) != "begin committed owing running" {
				t.Errorf("peer's journal: %s", w.story(journal.Peer))
			}
		})
	}
}

// Whoever kills the container that waits at the peer does not kill what the source holds.
func TestContainerThatEndsWithoutItsMemoryLeavesTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link, w.mode, w.failAt = newCable(-1), PostCopy, "follow"
		newTwinMemory(w, 0)
		if result := w.push(t.Context(), true); result.Outcome != report.Unknown || !strings.Contains(result.Error, "migrate resolve web") {
			t.Fatalf("%+v", result)
		}
		w.failAt = ""
		w.store.debt.lost = wire.ErrEnded
		w.store.debt.pay()
		synctest.Wait()
		for _, desk := range []*Desk{w.desk, w.newDesk()} { // the process, and one that comes after it
			w.desk = desk
			outcome, err := w.resolve(true, NoForce)
			if source, _ := w.states(); outcome != report.Unknown || !errors.Is(err, wire.ErrEnded) || source != frozen {
				t.Errorf("source %s, %s, %v", source, outcome, err)
			}
			if err == nil || !strings.Contains(err.Error(), "--force-source") || !strings.Contains(err.Error(), "--force-peer") {
				t.Errorf("it says %v", err)
			}
			w.set(&w.peer, absent)
		}
		if outcome, err := w.resolve(true, ForcePeer); outcome != report.Moved || err != nil {
			t.Errorf("%s, %v", outcome, err)
		}
	})
}

// A peer's process that is gone can take no more, and its successor does not say that all is there.
func TestPeerThatLacksMemoryIsNotSettled(t *testing.T) {
	w := newWorld(t)
	j, err := journal.Create(w.journals[1], journal.Move{Name: twinMove, Role: journal.Peer, Container: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(journal.Owing, ""); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Settle(t.Context(), twinHost{w}, w.journals[1], twinMove); !errors.Is(err, wire.ErrFollowing) || w.reached("settle") {
		t.Errorf("got %v", err)
	}
}
