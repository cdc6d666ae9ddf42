package main

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/livemigrate/migrate"
	"github.com/livemigrate/migrate/tests/bench/figures"
)

// The tools. Rows and reports name them so.
const (
	ours      = "migrate"
	oursSmall = "migrate, 64 MB"
	runcChain = "runc dump, copy, restore"
	runcLazy  = "runc + criu lazy-pages"
)

// Figures of a run.
const (
	gap      = "gap"            // ms, the client's longest silence
	total    = "total"          // ms, of the command or the chain of them
	later    = "slowest later"  // ms, the longest silence after the gap
	wire     = "wire"           // bytes sent, as a part of one copy of the memory
	downtime = "downtime"       // ms, freeze to DONE, by push itself
	off      = "prediction off" // of the downtime, as a part of it
	stopped  = "stopped"        // ms
	first    = "first"          // ms, from the command to the first answer
	slow     = "slow-down"      // of the work that was offered, the part that was not done
	rssAnon  = "RssAnon"        // MB, the highest of our processes
	peerMem  = "peer's memory"  // more of it than before, as a part of the container's
)

// row is a line of the table: what is run, and what may come of it. Rows are values: nothing is started here.
type row struct {
	name       string
	title      string
	rate       string // of the link, in tc's words; empty is the bare one
	runs       int    // unless others are asked for
	absent     string // why it cannot be run today
	contenders []contender
	limits     []limit
}

// contender is a tool at a size; it is run in turns with the row's others.
type contender struct {
	name string
	run  func(ctx context.Context, s *stage) (*sample, error)
}

// limit is a promise about a figure of ours. It holds with at most so much of a peer's median, or, without a peer, so much.
type limit struct {
	figure string
	unit   string
	what   string // contender; empty is ours
	of     string // contender; empty is a figure that stands for itself
	most   float64
	share  float64 // of the runs that must hold it, each by itself; 0 is the median
}

// sample is one run.
type sample struct {
	Values map[string]float64 `json:"values"`
	Phases map[string]float64 `json:"phases_ms,omitempty"`
	Rounds int                `json:"rounds,omitempty"`
	RSS    map[string]float64 `json:"rss_anon_mb,omitempty"`
}

// rowsOf is the whole table. Sizes are divided by shrink, for a look at whether everything runs.
func rowsOf(shrink int) []row {
	mb := func(n int) int { return max(n/shrink, 16) }
	const busy = 10000 // random page writes a second
	small, large := mb(64), mb(2048)
	third := limit{figure: gap, unit: "ms", of: runcChain, most: 1.0 / 3}
	half := limit{figure: gap, unit: "ms", of: runcLazy, most: 1.0 / 2}
	return []row{
		{
			name: "gap-64-idle", title: "gap, pre-copy, 64 MB, idle",
			contenders: race(load{mb: small}, "pre-copy"), limits: []limit{third, half},
		},
		{
			name: "gap-64-busy", title: "gap, pre-copy, 64 MB, 10,000 writes/s",
			contenders: race(load{mb: small, rate: busy}, "pre-copy"), limits: []limit{third, half},
		},
		{
			name: "gap-2g-idle", title: "gap, pre-copy, 2 GB, idle",
			contenders: append(race(load{mb: large}, "pre-copy"), contender{oursSmall, push(load{mb: small}, "pre-copy")}),
			limits: []limit{
				{figure: gap, unit: "ms", of: runcChain, most: 1.0 / 20},
				half,
				{figure: gap, unit: "ms", of: oursSmall, most: 2.5},
			},
		},
		{
			name: "gap-2g-busy", title: "gap, pre-copy, 2 GB, 10,000 writes/s",
			contenders: chain(load{mb: large, rate: busy}, "pre-copy"),
			limits:     []limit{{figure: gap, unit: "ms", of: runcChain, most: 1.0 / 15}},
		},
		{
			name: "total-2g", title: "total time, stop-copy, 2 GB",
			contenders: chain(load{mb: large}, "stop-copy"),
			limits:     []limit{{figure: total, unit: "ms", of: runcChain, most: 1.0 / 2}},
		},
		{
			name: "stopped-2g", title: "CRIU's stopped time, dump of 2 GB of private memory",
			contenders: dumps(load{mb: large}), limits: []limit{{figure: stopped, unit: "ms", most: 40}},
		},
		{
			name: "stopped-4g", title: "CRIU's stopped time, dump of 4 GB of private memory",
			contenders: dumps(load{mb: 2 * large}), limits: []limit{{figure: stopped, unit: "ms", most: 70}},
		},
		{
			name: "gap-shared", title: "gap, 1 GB of shared memory",
			contenders: chain(load{mb: mb(1024), shared: true}, "auto"),
			limits:     []limit{{figure: gap, unit: "ms", of: runcChain, most: 0.8}},
		},
		wireRow("wire-plain", "incompressible", load{mb: large}, 1.02),
		wireRow("wire-half", "half of each line zeros", load{mb: large, half: true}, 0.6),
		wireRow("wire-forks", "four processes with one forked memory", load{mb: large / 4, forks: 3}, 1.1),
		{
			name: "auto", title: "auto, 2 GB, 10,000 writes/s, 1 Gbit/s, --max-downtime 300ms", rate: "1gbit", runs: 10,
			contenders: []contender{{ours, push(load{mb: large, rate: busy}, "auto", "--max-downtime", "300ms")}},
			limits: []limit{
				{figure: downtime, unit: "ms", most: 300, share: 0.9},
				{figure: gap, unit: "ms", most: 300, share: 0.9},
				{figure: off, most: 0.3, share: 0.9},
			},
		},
		{
			name: "pause", title: "pause of checkpoint --leave-running, 2 GB",
			contenders: []contender{{ours, snapshot(load{mb: large}, ours)}, {runcChain, snapshot(load{mb: large}, runcChain)}},
			limits:     []limit{{figure: gap, unit: "ms", of: runcChain, most: 1.0 / 10}},
		},
		{
			name: "first", title: "restore --lazy-pages, 2 GB on disk, to the first answer (runc: its restore)",
			contenders: []contender{{ours, restoreFromDisk(load{mb: large}, ours)}, {runcChain, restoreFromDisk(load{mb: large}, runcChain)}},
			limits:     []limit{{figure: first, unit: "ms", of: runcChain, most: 1.0 / 5}},
		},
		{
			name: "slow", title: "slow-down of the service during rounds, 2 GB, 10,000 writes/s",
			contenders: []contender{{ours, push(load{mb: large, rate: busy}, "pre-copy")}},
			limits:     []limit{{figure: slow, most: 0.1}},
		},
		{
			name: "memory", title: "memory of our own processes and of the peer, 2 GB, 10,000 writes/s",
			contenders: []contender{{ours, push(load{mb: large, rate: busy}, "pre-copy")}},
			limits:     []limit{{figure: rssAnon, unit: "MB", most: 128}, {figure: peerMem, most: 1.1}},
		},
		{
			name: "post-copy", title: "post-copy, 2 GB, 10,000 writes/s", absent: absentMode("post-copy"),
			contenders: race(load{mb: large, rate: busy}, "post-copy"),
			limits: []limit{
				{figure: gap, unit: "ms", of: runcChain, most: 1},
				{figure: gap, unit: "ms", of: runcLazy, most: 1},
				{figure: total, unit: "ms", of: runcLazy, most: 1},
				{figure: later, unit: "ms", of: runcLazy, most: 1},
			},
		},
	}
}

// race is ours against both ways of runc, chain against the first.
func race(l load, mode string) []contender {
	return append(chain(l, mode), contender{runcLazy, func(ctx context.Context, s *stage) (*sample, error) {
		return measureMove(ctx, s, &lazyMover{runcMover{stage: s, load: l}}, l)
	}})
}

func chain(l load, mode string) []contender {
	return []contender{{ours, push(l, mode)}, {runcChain, func(ctx context.Context, s *stage) (*sample, error) {
		return measureMove(ctx, s, &runcMover{stage: s, load: l}, l)
	}}}
}

func push(l load, mode string, flags ...string) func(context.Context, *stage) (*sample, error) {
	return func(ctx context.Context, s *stage) (*sample, error) {
		return measureMove(ctx, s, &migrateMover{stage: s, load: l, flags: append([]string{"--mode", mode}, flags...)}, l)
	}
}

func wireRow(name, title string, l load, most float64) row {
	return row{
		name: name, title: "bytes on the wire, 2 GB, idle: " + title,
		contenders: []contender{{ours, push(l, "pre-copy")}}, limits: []limit{{figure: wire, most: most}},
	}
}

// absentMode is why a mode is not there, if so.
func absentMode(mode string) string {
	if _, err := migrate.ParseMode(mode); err != nil {
		return err.Error()
	}
	return ""
}

// values are one figure of a contender's runs.
func values(samples []*sample, figure string) []float64 {
	var all []float64
	for _, s := range samples {
		if v, ok := s.Values[figure]; ok {
			all = append(all, v)
		}
	}
	return all
}

// typical is the run in the middle, by a figure.
func typical(samples []*sample, figure string) *sample {
	if len(samples) == 0 {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(samples), func(a, b *sample) int {
		return int(math.Copysign(1, a.Values[figure]-b.Values[figure]))
	})
	return sorted[len(sorted)/2]
}

// measured says how a limit stands: what it compares, and whether it is kept. Without figures it is not.
func (l *limit) measured(samples map[string][]*sample) (got float64, kept bool) {
	what := l.what
	if what == "" {
		what = ours
	}
	mine := values(samples[what], l.figure)
	switch {
	case len(mine) == 0:
		return math.NaN(), false
	case l.share > 0:
		within := 0
		for _, v := range mine {
			if v <= l.most {
				within++
			}
		}
		got = float64(within) / float64(len(mine))
		return got, got >= l.share
	case l.of == "":
		got = figures.Summarise(mine).Median
	default:
		theirs := values(samples[l.of], l.figure)
		if len(theirs) == 0 {
			return math.NaN(), false
		}
		got = figures.Summarise(mine).Median / figures.Summarise(theirs).Median
	}
	return got, got <= l.most
}

// runLimit is how long one run may take, from a container's start to its end.
const runLimit = 5 * time.Minute
