package handover

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// What is learnt of a stop is that stop alone: not attempts that failed before, and no waiting for a peer that was lost.
func TestAStopIsLearntByItself(t *testing.T) {
	for name, c := range map[string]struct {
		failures   int
		lost, none bool
	}{
		"at once":           {},
		"after failures":    {failures: 3},
		"with a lost word":  {lost: true, none: true},
		"failures and lost": {failures: 1, lost: true, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				record := report.NewRecorder(nil)
				var p *Push
				for range c.failures + 1 {
					p = &Push{Record: record, Log: slog.New(slog.DiscardHandler), hello: &wire.Hello{}, prediction: &report.Prediction{}, lost: c.lost}
					p.begin()
					for _, phase := range []report.Phase{report.Freeze, report.Dump, report.Transfer, report.Restore, report.Resume} {
						record.Enter(phase)
						time.Sleep(time.Second)
					}
				}
				record.Leave()
				past := p.past()
				if c.none != (past == nil) || past != nil && (past.Source != 2*time.Second || past.Here != 2*time.Second) {
					t.Errorf("%+v", past)
				}
			})
		})
	}
}
