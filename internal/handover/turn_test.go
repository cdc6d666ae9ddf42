package handover

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livemigrate/migrate/internal/report"
)

// twinTurns notes in the world's steps who stands still when.
type twinTurns struct {
	*world
	wait time.Duration
}

func (t twinTurns) Take(context.Context) (next func(), waited time.Duration) {
	time.Sleep(t.wait)
	_ = t.step("turn")
	return func() { _ = t.step("next") }, t.wait
}

func (t twinTurns) Yield(context.Context) { _ = t.step("yield") }

// The turn is taken right before the stop and given up when the move is decided, however it ends. What was written while it was
// waited for goes before the stop.
func TestEachStopHasItsTurn(t *testing.T) {
	for name, c := range map[string]struct {
		mode   Mode
		failAt string
		wait   time.Duration
		want   report.Outcome
		rounds int
	}{
		"stop-copy":        {StopCopy, "", time.Second, report.Moved, 0},
		"nobody else":      {PreCopy, "", 0, report.Moved, 3},
		"others":           {PreCopy, "", time.Second, report.Moved, 4},
		"dump fails":       {PreCopy, "dump", 0, report.Kept, 3},
		"restore fails":    {StopCopy, "restore", 0, report.Kept, 0},
		"peer aborts":      {StopCopy, "open", 0, report.Kept, 0},
		"refused, no turn": {StopCopy, "hello", 0, report.Refused, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode, w.failAt = newCable(-1), c.mode, c.failAt
				w.turns = twinTurns{w, c.wait}
				m := newTwinMemory(w, 40, 0)
				result := w.push(t.Context(), true)
				if result.Outcome != c.want || m.passes != c.rounds {
					t.Errorf("%d rounds: %+v", m.passes, result)
				}
				turn, next := slices.Index(w.steps, "turn"), slices.Index(w.steps, "next")
				dump, end := slices.Index(w.steps, "dump"), slices.Index(w.steps, "destroy")
				switch {
				case c.want == report.Refused:
					if turn >= 0 {
						t.Errorf("it took a turn: %v", w.steps)
					}
				case turn < 0 || dump < turn || next < dump || end >= 0 && end < next:
					t.Errorf("out of order: %v", w.steps)
				case slices.Contains(w.steps[turn:next], "yield"):
					t.Errorf("it yields to itself: %v", w.steps)
				}
			})
		})
	}
}

// Both hosts wait for a disk while the container stands still; the result says for how long.
func TestTheWaitForRecordsIsTold(t *testing.T) {
	w := newWorld(t)
	w.link = newCable(-1)
	result := w.push(t.Context(), true)
	if result.Outcome != report.Moved || result.JournalMS < 2 || result.JournalMS > 1000 {
		t.Errorf("got %+v", result)
	}
}

// A container that writes much after its turn has come does not keep all others of the host waiting while it makes its rounds.
func TestTurnIsNotHeldForManyRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link, w.mode, w.target, w.converge = newCable(-1), Auto, 200*time.Millisecond, true
		w.turns = twinTurns{w, time.Second}
		newTwinMemory(w, 40, 0, twinPages, twinPages, twinPages, 50, 40, 30, 0)
		if result := w.push(t.Context(), true); result.Outcome != report.Moved {
			t.Fatalf("%+v", result)
		}
		held, rounds, turns := false, 0, 0
		for _, step := range w.steps {
			switch step {
			case "turn":
				held, rounds = true, 0
				turns++
			case "next":
				held = false
			case "round":
				if rounds++; held && rounds > lateRounds {
					t.Errorf("%d rounds with the turn: %v", rounds, w.steps)
				}
			case "dump":
				if !held {
					t.Error("it stops without a turn")
				}
			}
		}
		if turns < 2 {
			t.Errorf("it did not have to take one anew: %v", w.steps)
		}
	})
}
