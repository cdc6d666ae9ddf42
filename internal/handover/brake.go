package handover

import (
	"context"
	"math"
	"time"

	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
)

// slowed is what was done to the container so that a stop became short enough.
type slowed struct {
	part  float64 // of its processor time; 0: nothing was done
	since time.Time
	until time.Time
}

// slow slows the container down as was decided. A container that can't be is no obstacle: the rounds then end as without.
func (p *Push) slow(ctx context.Context, d decision, undo *rollback) bool {
	if p.slowed.since.IsZero() {
		undo.Add("give the container its processor time back", func(ctx context.Context) error {
			return p.Container.Slow(ctx, 1)
		})
	}
	if err := p.Container.Slow(ctx, d.slow); err != nil {
		p.Record.Warn("the container can't be slowed down: " + line.Of(err))
		return false
	}
	if p.slowed.since.IsZero() {
		p.slowed.since = time.Now()
	}
	p.slowed.part = d.slow
	p.Log.Info("the container is slowed down", "decision", d.String())
	p.Record.Slow(percent(d.slow))
	return true
}

func percent(part float64) int { return int(math.Round(100 * part)) }

// stopped notes that the container stands still.
func (s *slowed) stopped() { s.until = time.Now() }

func (s *slowed) report() *report.Slowed {
	if s.part == 0 {
		return nil
	}
	until := s.until
	if until.IsZero() {
		until = time.Now()
	}
	return &report.Slowed{CPU: percent(s.part), MS: report.Milliseconds(until.Sub(s.since))}
}
