package handover

import (
	"math"
	"testing"
	"time"
)

// A host that is slower or faster than the costs say is predicted well after few stops, whatever moved before.
func TestCostsAreLearntFromPastStops(t *testing.T) {
	const mb, gb = 1 << 20, 1 << 30
	costs := DefaultCosts()
	small, large := Load{Memory: 64 * mb, Processes: 1, Mounts: 6}, Load{Memory: 2 * gb, Processes: 1, Mounts: 6}
	many := Load{Memory: 512 * mb, Processes: 40, Mounts: 20}
	// stop is one that took so many times what the costs say.
	stop := func(container, peer string, l Load, source, here float64) Past {
		return Past{
			Container: container, Peer: peer, Load: l,
			Source: scaled(costs.source(l), source), Here: scaled(costs.peer(l), here),
		}
	}
	repeat := func(n int, p Past) (all []Past) {
		for range n {
			all = append(all, p)
		}
		return all
	}
	for name, c := range map[string]struct {
		past         []Past
		of           Load
		source, peer float64 // factors, to a fifth
	}{
		"nothing is known":                     {nil, small, 1, 1},
		"as slow as ever":                      {repeat(5, stop("web", "b", small, 2, 3)), small, 2, 3},
		"one stop, of the same container":      {repeat(1, stop("web", "b", small, 2, .5)), small, 2, .5},
		"other peers tell of the source alone": {repeat(5, stop("db", "c", small, 2, 3)), small, 2, 1},
		"one of another size tells less":       {repeat(1, stop("db", "b", large, 2, 2)), small, 1.35, 1.6},
		"of each size its own": {
			append(repeat(8, stop("db", "b", large, 3, 1)), repeat(2, stop("web", "b", small, 1, 1))...), small, 1.1, 1,
		},
		"the newest count most":         {append(repeat(8, stop("db", "b", many, 4, 4)), repeat(8, stop("db", "b", many, 1, 1))...), many, 1.25, 1.25},
		"one that hung is one of many":  {append(repeat(8, stop("web", "b", small, 1, 1)), stop("web", "b", small, 500, 500)), small, 1.6, 1.6},
		"of times that make no sense":   {[]Past{{Container: "web", Peer: "b", Load: Load{Processes: -5}, Source: -1, Here: math.MinInt64}}, small, 1, 1},
		"of loads that make no sense":   {repeat(3, Past{Container: "web", Peer: "b", Load: Load{Memory: math.MaxUint64, Mounts: math.MinInt}, Source: time.Second}), small, 1, 1},
		"a stop that took no time left": {repeat(9, stop("web", "b", small, 1e-6, 1e-6)), small, 1.0 / farthest, 1.0 / farthest},
	} {
		t.Run(name, func(t *testing.T) {
			source, peer := costs.learn(c.past, "b", "web", c.of)
			t.Logf("%.2f at the source, %.2f at the peer", source, peer)
			for _, f := range []struct{ got, want float64 }{{source, c.source}, {peer, c.peer}} {
				if !(f.got > f.want/1.2 && f.got < f.want*1.2) {
					t.Errorf("%.2f, want about %.2f", f.got, f.want)
				}
			}
		})
	}
}
