package handover

import (
	"fmt"
	"math"
	"time"
)

// converge decides after each round of memory whether to stop the container now. It is a function of what the rounds have
// shown; the numbers behind it:
//
//	rate      of the link: the fastest of the last rounds that were large enough to tell
//	dirty     what will be dirty at a stop now. A round sends what was written during the one before it; from two such
//	          pairs follows how the written bytes grow with time: with its power between 0 (always the same pages) and 1
//	overhead  what a round takes besides sending: the scan, and the peer's answer
//	downtime  fixed + overhead + (dirty + copied) / rate; fixed follows from Costs and from past stops
type converge struct {
	mode      Mode // Auto, PreCopy or Hybrid
	target    time.Duration
	maxRounds int
	lead      time.Duration // from the end of a round to the freeze
	fixed     time.Duration // what a stop takes besides scanning and sending
	copied    uint64        // bytes that CRIU itself copies inside the stop, such as shared memory
	brakes    bool          // Auto: the container may be slowed down
	braked    int           // steps so far,
	since     int           // and the passes before the last of them
}

// pass is one round as seen from here.
type pass struct {
	sent  uint64        // bytes on the wire
	took  time.Duration // until the peer had stored them
	ended time.Time     // when it had
	idle  time.Duration // from then to the next one
}

// span is the time in which what the next pass sends was written.
func (p pass) span() time.Duration { return p.took + p.idle }

// paused tells that the next pass came much later, and says nothing of how much is written during one.
func (p pass) paused() bool { return p.idle > max(p.took, worthARound) }

// decision is what the rounds so far say.
type decision struct {
	stop     bool
	slow     float64       // instead of a stop: the part of its processor time that the container should keep
	why      string        // of a stop
	downtime time.Duration // predicted for a stop now
	still    time.Duration // of it, what it would take if nothing were dirty
	dirty    uint64        // bytes to send in it
	rate     float64       // bytes per second
}

// Why the rounds end.
const (
	whyMet       = "one more round would hardly make the stop shorter"
	whyStale     = "the rounds do not get smaller any more"
	whySlowed    = "it fits since the container was slowed down"
	whyNoMore    = "as many rounds as allowed were made"
	whyEnough    = "the rest follows while it runs at the peer"
	margin       = 1.1                  // a prediction that is met only just is not met
	worthwhile   = 0.1                  // what a round has to take off the downtime
	patience     = 2                    // rounds without that, one may be bad luck
	hybridRounds = 3                    // of Hybrid: all, what was written meanwhile, and what was during that
	crawling     = 0.7                  // a pass, of the one before it
	leastGain    = 5 * time.Millisecond // below it no client notices
	telling      = 8 << 20              // bytes from which a round shows the link's rate
	recent       = 3                    // rounds whose rates count
)

// decide is called after each round; there is at least one.
func (c *converge) decide(passes []pass) decision {
	d := c.predict(passes)
	small := c.gain(passes, d) < max(time.Duration(worthwhile*float64(d.downtime)), leastGain)
	fits := c.mode != Auto || float64(d.downtime)*margin <= float64(c.target)
	switch {
	case c.mode == Hybrid && c.enough(passes, d):
		d.stop, d.why = true, whyEnough
	case fits && c.braked > 0: // a container that was slowed down waits for no better one
		d.stop, d.why = true, whySlowed
	case fits && small:
		d.stop, d.why = true, whyMet
	case !fits && c.crawls(passes) && c.canBrake(passes, d):
		d.slow = brakeSteps()[c.braked]
		c.braked++
		c.since = len(passes)
	case c.stale(passes):
		d.stop, d.why = true, whyStale
	case len(passes) >= c.maxRounds:
		d.stop, d.why = true, whyNoMore
	}
	return d
}

// brakeSteps are the parts of its processor time that a container keeps, one after the other.
func brakeSteps() []float64 { return []float64{.8, .6, .4, .2} }

// crawls tells that the passes hardly get smaller: the container writes nearly as fast as the link carries, or faster. The
// first pass after a step of the brake still sends what was written before it.
func (c *converge) crawls(passes []pass) bool {
	n := len(passes)
	return n >= max(c.since+2, 3) && !passes[n-2].paused() && float64(passes[n-1].sent) > crawling*float64(passes[n-2].sent)
}

// canBrake tells whether a slower container could be away for as short as is wanted.
func (c *converge) canBrake(passes []pass, d decision) bool {
	return c.brakes && c.braked < len(brakeSteps()) && len(passes) < c.maxRounds && float64(d.still)*margin <= float64(c.target)
}

// unbrake: the container can't be slowed down.
func (c *converge) unbrake() {
	c.brakes = false
	if c.braked--; c.braked == 0 {
		c.since = 0
	}
}

// enough tells that what is left may follow while the container runs at the peer: after the pass over all of it, and one over
// what was written meanwhile, it is small, or the next pass would hardly make it smaller.
func (c *converge) enough(passes []pass, d decision) bool {
	n := len(passes)
	if n < 2 {
		return passes[0].sent == 0
	}
	rounds := n
	for _, p := range passes[:n-1] {
		if p.paused() { // the next one was over what was written meanwhile
			rounds--
		}
	}
	return rounds >= hybridRounds || sending(d.dirty, d.rate) <= d.still || passes[n-1].sent > passes[n-2].sent/2 && !passes[n-2].paused()
}

// predict tells what a stop right after the last of the passes would cost.
func (c *converge) predict(passes []pass) decision {
	last := passes[len(passes)-1]
	d := decision{rate: rateOf(passes), dirty: dirtied(passes[min(c.since, len(passes)-1):], last.took+c.lead)}
	d.still = c.fixed + overhead(last, d.rate) + sending(c.copied, d.rate)
	d.downtime = d.still + sending(d.dirty, d.rate)
	return d
}

// gain is what one more round would take off the downtime at best: if the container writes as much in each moment.
func (c *converge) gain(passes []pass, d decision) time.Duration {
	if len(passes) == 1 {
		return sending(d.dirty, d.rate) // nothing is known yet of what it writes
	}
	last, before := passes[len(passes)-1], passes[len(passes)-2]
	round := overhead(last, d.rate) + sending(d.dirty, d.rate)
	left := float64(last.sent) * float64(round+c.lead) / float64(before.span())
	return sending(d.dirty, d.rate) - sending(uint64(left), d.rate)
}

// stale tells that the last rounds have brought a stop no nearer.
func (c *converge) stale(passes []pass) bool {
	tried := len(passes) - patience
	if tried < 1 || tried <= c.since {
		return false
	}
	best := time.Duration(math.MaxInt64)
	for n := c.since + 1; n <= tried; n++ {
		best = min(best, c.predict(passes[:n]).downtime)
	}
	for n := tried + 1; n <= len(passes); n++ {
		if float64(c.predict(passes[:n]).downtime) < (1-worthwhile)*float64(best) {
			return false
		}
	}
	return true
}

// dirtied estimates how many bytes are written within a time, as bytes on the wire. Where the passes leave it open it is
// the most that it can be.
func dirtied(passes []pass, within time.Duration) uint64 {
	n := len(passes)
	last := passes[n-1]
	if n == 1 {
		return last.sent
	}
	before := passes[n-2] // what the last round sent was written during this one
	ratio := float64(within) / float64(max(before.span(), 1))
	power := 0.0
	if ratio > 1 {
		power = 1
	}
	if n > 2 {
		if p, ok := growth(passes[n-3].span(), before.sent, before.span(), last.sent); ok {
			power = p
		}
	}
	most := max(passes[0].sent, last.sent)
	if bytes := float64(last.sent) * math.Pow(ratio, power); bytes < float64(most) {
		return uint64(bytes)
	}
	return most
}

// growth is the power of time with which written bytes grow, from two times and what was written in them. Times that are
// too near each other tell nothing.
func growth(time1 time.Duration, bytes1 uint64, time2 time.Duration, bytes2 uint64) (float64, bool) {
	times := math.Log(float64(max(time2, 1)) / float64(max(time1, 1)))
	if math.Abs(times) < 0.2 || bytes1 == 0 || bytes2 == 0 {
		return 0, false
	}
	return min(max(math.Log(float64(bytes2)/float64(bytes1))/times, 0), 1), true
}

// rateOf is the link's rate in bytes per second, 0 when nothing was sent. Small rounds are mostly overhead and don't show it.
func rateOf(passes []pass) float64 {
	var rate float64
	var largest pass
	told := 0
	for n := len(passes) - 1; n >= 0 && told < recent; n-- {
		p := passes[n]
		if p.sent > largest.sent {
			largest = p
		}
		if p.sent >= telling {
			rate = max(rate, perSecond(p))
			told++
		}
	}
	if told == 0 {
		return perSecond(largest)
	}
	return rate
}

func perSecond(p pass) float64 { return float64(p.sent) / max(p.took.Seconds(), 1e-6) }

func overhead(p pass, rate float64) time.Duration { return max(p.took-sending(p.sent, rate), 0) }

func sending(bytes uint64, rate float64) time.Duration {
	if bytes == 0 || rate <= 0 {
		return 0
	}
	return duration(float64(bytes) / rate)
}

// duration is a time of so many seconds, kept where a few of them can be added up.
func duration(seconds float64) time.Duration {
	return time.Duration(min(seconds, 1e8) * float64(time.Second))
}

// String is for the log.
func (d decision) String() string {
	text := fmt.Sprintf("%v predicted, %.1f MB dirty, link %.0f MB/s", d.downtime.Round(time.Millisecond), float64(d.dirty)/1e6, d.rate/1e6)
	switch {
	case d.stop:
		text += ": " + d.why
	case d.slow > 0:
		text += fmt.Sprintf(": slow it down to %.0f %%", 100*d.slow)
	}
	return text
}
