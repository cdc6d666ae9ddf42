package handover

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livemigrate/migrate/internal/report"
)

// slowSteps are the twin's calls of Slow, in their order.
func slowSteps(w *world) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.steps), func(step string) bool { return !strings.HasPrefix(step, "slow") })
}

// hastyWorld has a container that writes all of its memory during each round, until it has been slowed down so far.
func hastyWorld(t *testing.T, slower int) *world {
	w := newWorld(t)
	w.link, w.mode, w.converge = newCable(-1), Auto, true
	w.target = 250 * time.Millisecond
	newTwinMemory(w, append(slices.Repeat([]int{twinPages}, slower), 1)...)
	return w
}

func TestContainerIsSlowedDownUntilTheStopFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := hastyWorld(t, 5)
		result := w.push(t.Context(), true)
		if result.Outcome != report.Moved || result.Slowed == nil || result.Slowed.CPU != 60 || result.Slowed.MS <= 0 {
			t.Fatalf("%+v, slowed %+v", result, result.Slowed)
		}
		if got := slowSteps(w); !slices.Equal(got, []string{"slow 0.8", "slow 0.6"}) {
			t.Errorf("steps %q", got)
		}
		var told []int
		for _, e := range w.events {
			if e.Event == "slow" {
				told = append(told, e.CPU)
			}
		}
		if !slices.Equal(told, []int{80, 60}) || len(result.Warnings) > 0 {
			t.Errorf("told %v, warnings %q", told, result.Warnings)
		}
	})
}

// Whatever ends a move, the container that stays has its processor time back.
func TestContainerThatStaysHasItsProcessorTimeBack(t *testing.T) {
	for _, step := range []string{"dump", "final", "restore", "slow 0.6"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := hastyWorld(t, 5)
				w.failAt = step
				result := w.push(t.Context(), true)
				got := slowSteps(w)
				if step == "slow 0.6" { // no reason not to move
					if result.Outcome != report.Moved || len(result.Warnings) == 0 || result.Slowed.CPU != 80 {
						t.Errorf("%+v, slowed %+v", result, result.Slowed)
					}
					return
				}
				if result.Outcome != report.Kept || got[len(got)-1] != "slow 1.0" {
					t.Errorf("%s: steps %q", result.Outcome, got)
				}
			})
		})
	}
}

// Who can't have what was asked for hears of it before the stop, and of what would help.
func TestStopThatIsTooLongIsToldBefore(t *testing.T) {
	for name, c := range map[string]struct {
		target   time.Duration
		converge bool
		cures    []string
	}{
		"it writes too fast":            {250 * time.Millisecond, false, []string{"--auto-converge", "--mode hybrid", "--max-downtime"}},
		"and slower does not help":      {250 * time.Millisecond, true, []string{"--mode hybrid", "--max-downtime"}},
		"hosts that take longer anyway": {50 * time.Millisecond, true, []string{"takes so long between these hosts: --max-downtime"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := hastyWorld(t, DefaultMaxRounds)
				w.converge, w.target = c.converge, c.target
				result := w.push(t.Context(), true)
				if result.Outcome != report.Moved || len(result.Warnings) != 1 {
					t.Fatalf("%+v", result)
				}
				warned := slices.IndexFunc(w.events, func(e report.Event) bool { return e.Event == "warning" })
				stopped := slices.IndexFunc(w.events, func(e report.Event) bool { return e.Phase == report.Freeze })
				if warned > stopped {
					t.Error("it was told when the container stood still already")
				}
				for _, cure := range append(c.cures, "are predicted") {
					if !strings.Contains(result.Warnings[0], cure) {
						t.Errorf("%q lacks %q", result.Warnings[0], cure)
					}
				}
				if strings.Contains(result.Warnings[0], "--auto-converge") != (len(c.cures) == 3) {
					t.Errorf("%q", result.Warnings[0])
				}
			})
		})
	}
}
