package keeper

import (
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
)

// Two hiccups of a link that are an hour apart are two; what happens again and again is one, and comes to an end.
func TestEachBreakOfALinkHasItsPatience(t *testing.T) {
	const limit = 30 * time.Second
	type attempt struct {
		handover.Attempt
		took, after time.Duration // of it, it broke so long before its end
	}
	lost := handover.Attempt{LinkLost: true}
	for name, c := range map[string]struct {
		attempts []attempt
		want     bool
	}{
		"first":                         {[]attempt{{lost, time.Hour, 0}}, true},
		"soon again":                    {[]attempt{{lost, time.Hour, 0}, {lost, 10 * time.Second, 0}}, true},
		"again and again":               {[]attempt{{lost, time.Hour, 0}, {lost, 20 * time.Second, 0}, {lost, 20 * time.Second, 0}}, false},
		"much later":                    {[]attempt{{lost, time.Hour, 0}, {lost, time.Hour, 0}}, true},
		"not made again within it":      {[]attempt{{lost, time.Hour, 40 * time.Second}}, false},
		"much later, and not again":     {[]attempt{{lost, time.Hour, 0}, {lost, time.Hour, 40 * time.Second}}, false},
		"nobody there for long":         {[]attempt{{lost, time.Hour, 0}, {handover.Attempt{Unreached: true}, 40 * time.Second, 0}}, false},
		"always at the same place":      {[]attempt{{lost, time.Minute, 0}, {lost, time.Minute, 0}, {lost, time.Minute, 0}, {lost, time.Minute, 0}, {lost, time.Minute, 0}, {lost, time.Minute, 0}}, false},
		"a failure after a mended link": {[]attempt{{lost, time.Hour, 0}, {handover.Attempt{}, time.Second, 0}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, now := patience{limit: limit}, time.Now()
			for _, a := range c.attempts {
				began := now
				now = now.Add(a.took)
				if a.after > 0 {
					a.Broke = now.Add(-a.after)
				}
				p.note(&a.Attempt, began, now)
			}
			if got := p.broke() && p.lasts(now); got != c.want {
				t.Errorf("another attempt: %t", got)
			}
		})
	}
}
