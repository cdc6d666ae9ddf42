package handover

import (
	"math"
	"time"
)

// Load is what a container puts on CRIU inside the stop, on both hosts, besides what is sent there.
type Load struct {
	Memory    uint64 `json:"memory"`           // bytes that are resident
	Copied    uint64 `json:"copied,omitempty"` // of it, what CRIU itself copies, such as shared memory
	Processes int    `json:"processes"`
	Mounts    int    `json:"mounts"`
}

// Costs are what the parts of a stop take besides sending what is dirty at its beginning: the parts that depend on CRIU and on
// the hosts. nil in a Push means DefaultCosts.
type Costs struct {
	Lead        time.Duration // from the end of the last round to the freeze: the container still writes
	Source      time.Duration // of any container at the source: the freeze, and the dump of the metadata
	Peer        time.Duration // and at the peer: restore, the journals, resume
	PerProcess  time.Duration // on each of both
	PerMount    time.Duration // on each of both
	PerGB       time.Duration // of 2^30 bytes at the source: page tables are walked even where nothing is copied
	PerCopiedGB time.Duration // of 2^30 bytes that CRIU itself copies, on each of both, besides their way over the link
}

// DefaultCosts are measured on two hosts of two cores each. A host that is faster or slower says so by its past stops.
func DefaultCosts() *Costs {
	return &Costs{
		Lead:        30 * time.Millisecond,
		Source:      50 * time.Millisecond,
		Peer:        75 * time.Millisecond,
		PerProcess:  3 * time.Millisecond,
		PerMount:    time.Millisecond,
		PerGB:       40 * time.Millisecond,
		PerCopiedGB: 500 * time.Millisecond,
	}
}

// source is the source's part of a stop.
func (c *Costs) source(l Load) time.Duration {
	return c.Source + c.either(l) + perGB(c.PerGB, l.Memory)
}

// peer is the peer's part.
func (c *Costs) peer(l Load) time.Duration { return c.Peer + c.either(l) }

func (c *Costs) either(l Load) time.Duration {
	listed := time.Duration(max(l.Processes, 0))*c.PerProcess + time.Duration(max(l.Mounts, 0))*c.PerMount
	return listed + perGB(c.PerCopiedGB, l.Copied)
}

func perGB(cost time.Duration, bytes uint64) time.Duration {
	return duration(cost.Seconds() * float64(bytes) / (1 << 30))
}

// Past is what a stop took that is over, besides sending: the next ones are predicted from it.
type Past struct {
	Container string `json:"container"`
	Peer      string `json:"peer"`
	Load
	Source time.Duration `json:"source_ns"`
	Here   time.Duration `json:"peer_ns"` // at the peer, without the way there
}

// What past stops weigh. Costs themselves count as a stop that was predicted right.
const (
	prior    = 0.5
	fading   = 0.8 // for each stop that is newer
	sameName = 4   // the same container again tells the most
	farthest = 8   // times what Costs say: beyond it something else happened
)

// learn returns what has to be multiplied with the costs of a container's stop, at the source and at the peer, by what past
// ones took, the newest last. It is the weighted geometric mean of what each of them took of what Costs say of it. One whose
// stop is thought to be like this one's counts more: what is wrong with Costs is then wrong in the same way.
func (c *Costs) learn(past []Past, peer, container string, l Load) (atSource, atPeer float64) {
	source, there := mean{weight: prior}, mean{weight: prior}
	age := 1.0
	for i := len(past) - 1; i >= 0; i-- {
		p := past[i]
		weight := age
		if p.Container == container {
			weight *= sameName
		}
		source.add(weight, p.Source, c.source(p.Load), c.source(l))
		if p.Peer == peer {
			there.add(weight, p.Here, c.peer(p.Load), c.peer(l))
		}
		age *= fading
	}
	return source.factor(), there.factor()
}

// mean is that of logarithms.
type mean struct{ sum, weight float64 }

// add takes in what a stop took, what costs say of it, and what they say of the stop that is to be predicted.
func (m *mean) add(weight float64, took, said, wanted time.Duration) {
	if took <= 0 || said <= 0 || wanted <= 0 {
		return
	}
	weight *= float64(min(said, wanted)) / float64(max(said, wanted))
	m.sum += weight * math.Log(min(max(float64(took)/float64(said), 1.0/farthest), farthest))
	m.weight += weight
}

func (m *mean) factor() float64 { return math.Exp(m.sum / m.weight) }
