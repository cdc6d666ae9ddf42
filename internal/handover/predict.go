package handover

import (
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/report"
)

// converge makes the decider of this move, by what the hosts took for stops before.
func (p *Push) converge() *converge {
	costs := p.Costs
	if costs == nil {
		costs = DefaultCosts()
	}
	l := p.memory.Load()
	atSource, atPeer := costs.learn(p.Past, p.Peer, p.hello.GetContainer(), l)
	p.load = l
	c := &converge{
		mode: p.Mode, target: p.MaxDowntime, maxRounds: p.MaxRounds, copied: l.Copied, lead: costs.Lead,
		brakes: p.Converge && p.Mode == Auto,
		fixed:  scaled(costs.source(l), atSource) + scaled(costs.peer(l), atPeer) + 2*p.away,
	}
	if c.target == 0 {
		c.target = DefaultMaxDowntime
	}
	if c.maxRounds == 0 {
		c.maxRounds = DefaultMaxRounds
	}
	p.Log.Info("what a stop takes besides sending", "predicted", c.fixed.String(), "past", len(p.Past), "source", atSource, "peer", atPeer,
		"round_trip", p.away.String(), "processes", l.Processes, "mounts", l.Mounts, "memory", l.Memory, "copied", l.Copied)
	return c
}

func scaled(d time.Duration, by float64) time.Duration { return duration(d.Seconds() * by) }

// foresee tells what is expected of the stop that follows.
func (p *Push) foresee(c *converge, d decision) {
	p.Log.Info("stopping the container", "decision", d.String())
	if p.Mode.Later() { // what is not sent yet does not lengthen the stop
		return
	}
	p.mode = PreCopy
	p.prediction = &report.Prediction{
		DowntimeMS:  report.Milliseconds(d.downtime),
		Reason:      d.why,
		DirtyBytes:  d.dirty,
		BytesPerSec: uint64(d.rate),
	}
	if p.Mode == Auto {
		p.prediction.TargetMS = report.Milliseconds(c.target)
		if d.downtime > c.target {
			p.Record.Warn(fmt.Sprintf("the container will be away for longer than %v: %v are predicted, and %s; %s",
				c.target, d.downtime.Round(time.Millisecond), d.why, p.cure(c, d)))
		}
	}
}

// cure is what would help a stop that takes longer than it should.
func (p *Push) cure(c *converge, d decision) string {
	larger := fmt.Sprintf("--max-downtime %v is met", (d.downtime * 5 / 4).Round(10*time.Millisecond))
	switch {
	case d.still > c.target: // though nothing were written any more
		return "a stop of this container takes so long between these hosts: " + larger
	case p.Converge:
		return "--mode hybrid lets the rest follow while it runs at the peer; " + larger
	default:
		return "--auto-converge slows it down until it fits; --mode hybrid lets the rest follow while it runs at the peer; " + larger
	}
}

// stopped is what the halves of a stop took.
type stopped struct{ source, here time.Duration }

// stopped is what the Recorder knows of them, over all attempts.
func (p *Push) stopped() stopped {
	spent := p.Record.Spent
	return stopped{spent(report.Freeze) + spent(report.Dump), spent(report.Restore) + spent(report.Resume)}
}

// past is what CRIU and the hosts have taken of the stop. The transfer is left out: rounds show what that takes. A peer that had
// to be asked for its word has taken nobody knows how long.
func (p *Push) past() *Past {
	if p.prediction == nil || p.lost {
		return nil
	}
	spent, all := p.Record.Spent, p.stopped()
	source := all.source - p.before.source
	here := all.here - p.before.here - 2*p.away
	p.Log.Info("what the stop took", "source", source.String(), "transfer", spent(report.Transfer).String(), "peer", here.String(),
		"predicted_ms", p.prediction.DowntimeMS, "dirty", p.last, "dirty_predicted", p.prediction.DirtyBytes)
	return &Past{
		Container: p.hello.GetContainer(), Peer: p.Peer, Load: p.load,
		Source: max(source, time.Millisecond), Here: max(here, time.Millisecond),
	}
}
