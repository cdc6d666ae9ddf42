package keeper

import (
	"time"

	"github.com/livemigrate/migrate/internal/handover"
)

// patience is for how long a link that broke is made again, by attempt after attempt.
type patience struct {
	limit  time.Duration
	broken time.Time // when it broke; zero: it has not
	anew   int       // breaks that counted by themselves
}

// anewTimes bounds those: what ends each attempt at the same place is not the link.
const anewTimes = 4

// note is told how an attempt ended that began at a time. A break after the link has stood for longer than the patience lasts is
// another one.
func (p *patience) note(a *handover.Attempt, began, ended time.Time) {
	if !a.LinkLost {
		return
	}
	broke := a.Broke
	if broke.IsZero() {
		broke = ended
	}
	switch {
	case !p.broke():
		p.broken = broke
	case p.anew < anewTimes && !a.Unreached && broke.Sub(began) > p.limit:
		p.broken = broke
		p.anew++
	}
}

// broke tells whether it did, in any attempt.
func (p *patience) broke() bool { return !p.broken.IsZero() }

// lasts tells whether another attempt may be made.
func (p *patience) lasts(now time.Time) bool { return now.Sub(p.broken) <= p.limit }
