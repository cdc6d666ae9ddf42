package handover

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// Every page is at the peer as it was when the container stopped, whatever was sent before.
func TestMemoryIsAtThePeerAsItWasAtTheStop(t *testing.T) {
	for mode, outcome := range map[Mode]struct {
		mode   Mode
		rounds bool
	}{
		StopCopy: {StopCopy, false}, PreCopy: {PreCopy, true}, Auto: {PreCopy, true}, "": {PreCopy, true},
	} {
		t.Run(string(mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode = newCable(-1), mode
				m := newTwinMemory(w, 40, 20, 5)
				result := w.push(t.Context(), true)
				if result.Outcome != report.Moved || result.Mode != string(outcome.mode) || len(result.Warnings) > 0 {
					t.Fatalf("got %+v", result)
				}
				if !m.final || m.closed != 1 {
					t.Errorf("final %v, closed %d times", m.final, m.closed)
				}
				if (m.passes > 0) != outcome.rounds || (result.Prediction != nil) != outcome.rounds {
					t.Errorf("%d rounds, prediction %+v", m.passes, result.Prediction)
				}
				if len(result.Rounds) != m.passes+1 || !result.Rounds[m.passes].Frozen {
					t.Errorf("rounds %+v after %d", result.Rounds, m.passes)
				}
				told := slices.DeleteFunc(w.events, func(e report.Event) bool { return e.Event != "round" })
				if len(told) != len(result.Rounds) || *told[0].Round != result.Rounds[0] {
					t.Errorf("events %+v", told)
				}
			})
		})
	}
}

// Files that change while the first pass or the rounds go on are sent before the stop, and not in it.
func TestTreesAreSentAgainRightBeforeTheStop(t *testing.T) {
	for mode, before := range map[Mode]string{StopCopy: "prepare", PreCopy: "round"} {
		t.Run(string(mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode = newCable(-1), mode
				newTwinMemory(w, 40, 20, 5)
				if result := w.push(t.Context(), true); result.Outcome != report.Moved {
					t.Fatalf("got %+v", result)
				}
				var passes []int
				last := 0
				for i, step := range w.steps {
					switch step {
					case "pass":
						passes = append(passes, i)
					case before:
						last = i
					}
				}
				if len(passes) != 2 || passes[1] < last || passes[1] > slices.Index(w.steps, "dump") {
					t.Errorf("steps %v", w.steps)
				}
			})
		})
	}
}

// A refresh that takes long is followed by a round, for the container wrote meanwhile, and by another refresh while they become
// shorter. Trees that never come to rest do not hold the move up.
func TestLongRefreshIsFollowedByARound(t *testing.T) {
	const rounds = 3 // of a move without one
	for name, c := range map[string]struct {
		passes        []time.Duration
		looks, rounds int
	}{
		"short":         {[]time.Duration{time.Minute, longRefresh / 2}, 2, rounds},
		"long":          {[]time.Duration{time.Minute, time.Second, longRefresh / 2}, 3, rounds + 1},
		"longer":        {[]time.Duration{time.Minute, 20 * time.Second, 5 * time.Second, 0}, 4, rounds + 2},
		"never shorter": {[]time.Duration{time.Second, 2 * time.Second, 4 * time.Second}, 2, rounds + 1},
		"not half":      {[]time.Duration{time.Second, 800 * time.Millisecond}, 2, rounds + 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode, w.passTakes = newCable(-1), PreCopy, c.passes
				m := newTwinMemory(w, 40, 0)
				result := w.push(t.Context(), true)
				if result.Outcome != report.Moved {
					t.Fatalf("got %+v", result)
				}
				looks, lastLook, lastRound := 0, 0, 0
				for i, step := range w.steps {
					switch step {
					case "pass":
						looks, lastLook = looks+1, i
					case "round":
						lastRound = i
					}
				}
				if looks != c.looks || m.passes != c.rounds {
					t.Errorf("%d passes over the files and %d rounds, want %d and %d", looks, m.passes, c.looks, c.rounds)
				}
				if long := c.passes[c.looks-1] > longRefresh; long && lastRound < lastLook {
					t.Errorf("no round after the last refresh: %v", w.steps)
				}
			})
		})
	}
}

// What fails of the engine while the container runs costs nothing but the time that the images take.
func TestMemoryFallsBackToImagesBeforeTheFreeze(t *testing.T) {
	for step, forgets := range map[string]bool{
		"memory": false, "round": true, "second round": true, "pages": true, "pages again": true, "close memory": false,
	} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode, w.failAt = newCable(-1), PreCopy, step
				m := newTwinMemory(w, twinPages, twinPages, twinPages)
				if step == "close memory" {
					w.failAt = "second round"
					w.closeFails = true
					forgets = true
				}
				result := w.push(t.Context(), true)
				if result.Outcome != report.Moved || result.Mode != "stop-copy" || result.Prediction != nil {
					t.Fatalf("got %+v", result)
				}
				if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "twin fails") {
					t.Errorf("the report does not say why: %q", result.Warnings)
				}
				if m.final || w.reached("forget") != forgets || m.closed != min(1, m.closed) {
					t.Errorf("final %v, closed %d times, forgotten %v", m.final, m.closed, w.reached("forget"))
				}
			})
		})
	}
}

// Inside the freeze there is no second way: the service goes on where it was.
func TestMemoryThatFailsInsideTheFreezeKeepsTheSource(t *testing.T) {
	for _, step := range []string{"final", "pages"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.link, w.mode, w.failAt = newCable(-1), StopCopy, step // no round comes before it
			m := newTwinMemory(w, 0)
			result := w.push(t.Context(), true)
			if result.Outcome != report.Kept || !strings.Contains(result.Error, step+": twin fails") {
				t.Errorf("got %+v", result)
			}
			if source, peer := w.states(); source != running || peer != absent || m.closed != 1 {
				t.Errorf("source %s, peer %s, closed %d times", source, peer, m.closed)
			}
		})
	}
}

func TestStoreThatHangsDoesNotKeepTheServiceDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link, w.hangAt = newCable(-1), "pages"
		newTwinMemory(w, twinPages)
		began := time.Now()
		result := w.push(t.Context(), true)
		if source, peer := w.states(); source != running || peer == running || time.Since(began) > 4*time.Minute {
			t.Errorf("after %v: source %s, peer %s: %+v", time.Since(began), source, peer, result)
		}
	})
}

// A host that can't, or a peer with too little room, is no obstacle; who asked for rounds hears of it.
func TestMemoryGoesByImagesWhereOneSideCannot(t *testing.T) {
	for name, edit := range map[string]func(*world){
		"no feeder at the peer": func(w *world) { w.offers = nil },
		"too little room there": func(w *world) { w.offers.FeedLimit = pageSize },
		"none at the source":    func(w *world) { w.memory = nil },
	} {
		for mode, warnings := range map[Mode]int{PreCopy: 1, Auto: 0} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode = newCable(-1), mode
				m := newTwinMemory(w, 0)
				edit(w)
				result := w.push(t.Context(), true)
				if result.Outcome != report.Moved || result.Mode != "stop-copy" || len(result.Warnings) != warnings {
					t.Errorf("got %+v", result)
				}
				if m.passes > 0 || m.final {
					t.Error("memory was sent")
				}
			})
		}
	}
}

func TestModesThatAreNotThereAreRefusedByName(t *testing.T) {
	const mode = "psychic"
	w := newWorld(t)
	w.link, w.mode = newCable(-1), mode // a source that let it through
	result := w.push(t.Context(), true)
	if result.Outcome != report.Refused || !strings.Contains(result.Error, mode) {
		t.Errorf("%+v", result)
	}
	if _, err := ParseMode(mode); err == nil {
		t.Error("it passed")
	}
}

// The link is cut after every possible number of control frames of a move with rounds.
func TestLinkCutAnywhereInRoundsNeverMakesTwoNorNone(t *testing.T) {
	for _, reachable := range []bool{true, false} {
		for cut := range 26 {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.mode = PreCopy
				newTwinMemory(w, 40, 20, 5)
				cutOnce(t, w, cut, reachable)
			})
		}
	}
}

// A source that sends what nobody asked for, or tells of less than it sends, is not believed.
func TestPeerRefusesPagesThatWereNotAgreedOn(t *testing.T) {
	frame := append(wire.AppendPagesHeader(nil), make([]byte, 16)...)
	r := newPageReceiver(func([]byte) error { return nil })
	for range 2 {
		if err := r.take(frame); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.wait(t.Context(), 1); err == nil {
		t.Error("a frame too many passed")
	}
	w := newWorld(t)
	images, err := newImageReceiver(w.images, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	source, peer := newSessions(newCable(-1))
	if err := source.Images()[0].Send(t.Context(), frame); err != nil {
		t.Fatal(err)
	}
	if err := (&Receive{images: images}).drain(t.Context(), peer.Images()[0]); err == nil {
		t.Error("pages passed that were not offered to be taken")
	}
}
