package handover

import (
	"math"
	"slices"
	"testing"
	"time"
)

// model is a container that writes, and a link: what the decision has to get right without knowing either.
type model struct {
	memory  float64 // bytes
	writes  float64 // bytes per second, at random over hot
	hot     float64 // bytes
	link    float64 // bytes per second
	scan    time.Duration
	fixed   time.Duration
	noise   float64 // by how much every second round's link is slower
	waking  int     // from this round on it writes nothing, with 0 always
	mode    Mode
	target  time.Duration
	rounds  int // at most
	brakes  bool
	kept    float64 // of its processor time
	passes  []pass
	decided decision
}

// written is how many bytes are dirty after a time: random writes hit pages that are dirty already.
func (m *model) written(within time.Duration) float64 {
	if m.hot == 0 || m.waking > 0 && len(m.passes) >= m.waking {
		return 0
	}
	return m.hot * (1 - math.Exp(-m.kept*m.writes*within.Seconds()/m.hot))
}

// lead is from the end of a round to the freeze.
const lead = 30 * time.Millisecond

// run makes rounds until the decision, and returns the downtime that comes of it.
func (m *model) run() time.Duration {
	m.kept = 1
	c := &converge{brakes: m.brakes, mode: m.mode, target: m.target, maxRounds: m.rounds, lead: lead, fixed: m.fixed}
	left := m.memory
	for {
		link := m.link
		if len(m.passes)%2 == 1 {
			link *= 1 - m.noise
		}
		took := m.scan + time.Duration(left/link*float64(time.Second))
		m.passes = append(m.passes, pass{sent: uint64(left), took: took})
		m.decided = c.decide(m.passes)
		slow := m.decided.slow
		if m.decided.stop {
			left = m.written(took + lead)
			return m.fixed + m.scan + time.Duration(left/m.link*float64(time.Second))
		}
		left = m.written(took)
		if slow > 0 {
			m.kept = slow
		}
	}
}

func TestDecisionStopsWhenItShould(t *testing.T) {
	const mb, gb = 1e6, 1e9
	ms := time.Millisecond
	for name, c := range map[string]struct {
		model    model
		why      string
		min, max int           // rounds
		downtime time.Duration // at most; 0: not looked at
	}{
		"idle": {
			model{memory: 2 * gb, link: 1.5 * gb, scan: 3 * ms, fixed: 100 * ms}, whyMet, 2, 2, 110 * ms,
		},
		"small": {
			model{memory: 64 * mb, link: 1.5 * gb, scan: 2 * ms, fixed: 60 * ms}, whyMet, 2, 2, 65 * ms,
		},
		"tiny": {
			model{memory: 4 * mb, link: 1.5 * gb, scan: ms, fixed: 60 * ms}, whyMet, 1, 1, 65 * ms,
		},
		"10,000 random pages a second, fast link": {
			model{memory: 2 * gb, writes: 41 * mb, hot: 2 * gb, link: 1.5 * gb, scan: 3 * ms, fixed: 100 * ms}, whyMet, 2, 4, 110 * ms,
		},
		"the same over 1 Gbit/s": {
			model{memory: 2 * gb, writes: 41 * mb, hot: 2 * gb, link: 118 * mb, scan: 3 * ms, fixed: 100 * ms}, whyMet, 4, 8, 150 * ms,
		},
		"the same, a link that wavers": {
			model{memory: 2 * gb, writes: 41 * mb, hot: 2 * gb, link: 118 * mb, noise: .2, scan: 3 * ms, fixed: 100 * ms}, whyMet, 4, 8, 160 * ms,
		},
		"a hot set that fits": {
			model{memory: 2 * gb, writes: 4 * gb, hot: 50 * mb, link: 1 * gb, scan: 3 * ms, fixed: 100 * ms}, whyMet, 3, 4, 160 * ms,
		},
		"a hot set that does not fit": {
			model{memory: 2 * gb, writes: 4 * gb, hot: 400 * mb, link: 1 * gb, scan: 3 * ms, fixed: 100 * ms}, whyStale, 3, 6, 520 * ms,
		},
		"pre-copy takes what can't be had shorter": {
			model{memory: 2 * gb, writes: 4 * gb, hot: 400 * mb, link: 1 * gb, scan: 3 * ms, fixed: 100 * ms, mode: PreCopy}, whyMet, 3, 4, 520 * ms,
		},
		"faster than the link": {
			model{memory: 2 * gb, writes: 3 * gb, hot: 2 * gb, link: 1 * gb, scan: 3 * ms, fixed: 100 * ms}, whyStale, 3, 4, 0,
		},
		"a target below what a stop costs": {
			model{memory: 64 * mb, link: 1 * gb, scan: 2 * ms, fixed: 100 * ms, target: 50 * ms}, whyStale, 3, 4, 105 * ms,
		},
		"every page compared each time": {
			model{memory: 2 * gb, writes: 1 * mb, hot: 2 * gb, link: 1 * gb, scan: 150 * ms, fixed: 100 * ms}, whyMet, 2, 3, 260 * ms,
		},
		"as many rounds as allowed": {
			model{memory: 2 * gb, writes: 41 * mb, hot: 2 * gb, link: 60 * mb, scan: 3 * ms, fixed: 100 * ms, rounds: 3}, whyNoMore, 3, 3, 0,
		},
		"it stops writing": {
			model{memory: 2 * gb, writes: 3 * gb, hot: 2 * gb, link: 1 * gb, scan: 3 * ms, fixed: 100 * ms, waking: 2}, whyMet, 3, 4, 110 * ms,
		},
		"slowed down as far as it takes": {
			model{memory: 2 * gb, writes: 100 * mb, hot: 2 * gb, link: 110 * mb, scan: 3 * ms, fixed: 150 * ms, brakes: true}, whySlowed, 5, 20, 300 * ms,
		},
		"slowed down to the end in vain": {
			model{memory: 2 * gb, writes: 3 * gb, hot: 2 * gb, link: 110 * mb, scan: 3 * ms, fixed: 150 * ms, brakes: true}, whyStale, 8, 14, 0,
		},
		"it fits without being slowed down": {
			model{memory: 2 * gb, writes: 41 * mb, hot: 2 * gb, link: 118 * mb, scan: 3 * ms, fixed: 100 * ms, brakes: true}, whyMet, 4, 8, 150 * ms,
		},
		"no brake where it can't help": {
			model{memory: 2 * gb, writes: 3 * gb, hot: 2 * gb, link: 110 * mb, scan: 3 * ms, fixed: 300 * ms, brakes: true}, whyStale, 3, 8, 0,
		},
		"hybrid, idle": {
			model{memory: 2 * gb, link: 1 * gb, scan: 3 * ms, fixed: 100 * ms, mode: Hybrid}, whyEnough, 2, 2, 0,
		},
		"hybrid, rounds that pay": {
			model{memory: 2 * gb, writes: 41 * mb, hot: 2 * gb, link: 118 * mb, scan: 3 * ms, fixed: 100 * ms, mode: Hybrid}, whyEnough, 3, 3, 0,
		},
		"hybrid, rounds that do not": {
			model{memory: 2 * gb, writes: 3 * gb, hot: 2 * gb, link: 1 * gb, scan: 3 * ms, fixed: 100 * ms, mode: Hybrid}, whyEnough, 2, 2, 0,
		},
		"hybrid, nothing to send": {
			model{link: 1 * gb, scan: ms, fixed: 60 * ms, mode: Hybrid}, whyEnough, 1, 1, 0,
		},
		"nothing to send": {
			model{link: 1 * gb, scan: ms, fixed: 60 * ms}, whyMet, 1, 1, 65 * ms,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.model
			if m.mode == "" {
				m.mode = Auto
			}
			if m.target == 0 {
				m.target = DefaultMaxDowntime
			}
			if m.rounds == 0 {
				m.rounds = DefaultMaxRounds
			}
			downtime := m.run()
			d, rounds := m.decided, len(m.passes)
			t.Logf("%d rounds, %v: away for %v", rounds, d, downtime)
			if d.why != c.why || rounds < c.min || rounds > c.max {
				t.Errorf("%d rounds, want %d to %d; %q, want %q", rounds, c.min, c.max, d.why, c.why)
			}
			if (d.slow > 0 || m.kept < 1) != (c.model.brakes && c.why != whyMet && c.model.fixed < m.target) {
				t.Errorf("it keeps %v of its processor time", m.kept)
			}
			if off := float64(d.downtime)/float64(downtime) - 1; math.Abs(off) > .3 && c.why != whyNoMore && c.why != whyEnough {
				t.Errorf("%v predicted, %v came: %.0f %% off", d.downtime, downtime, 100*off)
			}
			if c.downtime > 0 && downtime > c.downtime {
				t.Errorf("away for %v, want at most %v", downtime, c.downtime)
			}
		})
	}
}

// Whatever the figures, the decision comes to an end and predicts a time.
func FuzzDecisionEnds(f *testing.F) {
	f.Add(uint64(2e9), uint64(4e7), uint64(1e9), uint64(1e8), int64(3e6), uint8(30))
	f.Add(uint64(0), uint64(0), uint64(0), uint64(0), int64(0), uint8(0))
	f.Add(uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(1), uint64(math.MaxUint64), int64(math.MaxInt64), uint8(1))
	f.Fuzz(func(t *testing.T, a, b, d, e uint64, took int64, rounds uint8) {
		c := &converge{mode: Auto, brakes: took%2 == 0, target: DefaultMaxDowntime, maxRounds: int(rounds), lead: lead, fixed: 100 * time.Millisecond}
		var passes []pass
		for i := 0; ; i++ {
			passes = append(passes, pass{sent: []uint64{a, b, d, e}[i%4], took: time.Duration(max(took, 0) >> 6)})
			decided := c.decide(passes)
			if decided.downtime < 0 {
				t.Fatalf("%d rounds: %v", i, decided)
			}
			if decided.stop {
				return
			}
			if i > int(rounds) {
				t.Fatal("no end")
			}
		}
	})
}

// What CRIU copies inside the stop crosses the link.
func TestMemoryThatRoundsDoNotSendIsPredicted(t *testing.T) {
	passes := []pass{{sent: 1 << 30, took: time.Second}, {sent: 0, took: 0}}
	without := (&converge{mode: Auto}).predict(passes).downtime
	with := (&converge{mode: Auto, copied: 1 << 29}).predict(passes).downtime
	if more := with - without; more < 499*time.Millisecond || more > 501*time.Millisecond {
		t.Errorf("half a GB is predicted to take %v, want 500 ms", more)
	}
}

// What was written while the link was made again, or a turn was waited for, says nothing of how fast the container writes.
func TestPauseIsNoFasterWriter(t *testing.T) {
	const mb = 1 << 20
	calm := []pass{{sent: 1000 * mb, took: time.Second}, {sent: 200 * mb, took: 200 * time.Millisecond}, {sent: 500 * mb, took: 500 * time.Millisecond}}
	paused := slices.Clone(calm)
	paused[1].idle = 30 * time.Second
	hybrid := &converge{mode: Hybrid, target: 300 * time.Millisecond, maxRounds: 30, lead: lead}
	if hybrid.enough(paused, hybrid.predict(paused)) || !hybrid.enough(calm, hybrid.predict(calm)) {
		t.Error("hybrid ends its rounds with what the pause has left")
	}
	auto := &converge{mode: Auto, brakes: true, target: 300 * time.Millisecond, maxRounds: 30, lead: lead}
	if auto.crawls(paused) || !auto.crawls(calm) {
		t.Error("the container is slowed down for a pause of the link")
	}
	if got := auto.predict(paused).dirty; got > 250*mb {
		t.Errorf("%d MB are thought to be dirty", got/mb)
	}
}
