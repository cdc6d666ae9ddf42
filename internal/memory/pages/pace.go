package pages

import (
	"sync"
	"time"
)

// Compression says when frames are compressed by zstd.
type Compression int

// The zero value is Auto.
const (
	Auto   Compression = iota // where it is faster than the link
	Never                     // zero words are left out all the same: that costs no more than a copy
	Always                    // where it makes a frame smaller
)

// pace decides the form of each frame. A frame of size S takes on a lane of speed L
//
//	plain   S / L
//	sparse  S' / L                 S': see sparseEstimate
//	zstd    S / C + ratio * S / L  C: what the compressor does, on this machine under this load
//
// C, L and the ratio are those of the frames before: memory is alike over long stretches. Overlap is left out: while a frame
// waits for its lane the next one could be compressed, but on cores that the container would rather have.
type pace struct {
	mode Compression

	mu    sync.Mutex
	link  speed // of one lane
	zstd  speed // of the input
	ratio float64
	wait  int // frames until incompressible data is tried again
	pause int // how many that were last time
}

const (
	worth     = 0.9   // a form must bring the frame below this, or it stays plain
	maxPause  = 16    // frames between two trials, in MiB
	fastZstd  = 1.5e9 // no compressor reaches this: not tried on links that do
	smallZstd = 16 << 10
)

// choose gives the form for a frame of size bytes whose sparse form needs about sparse bytes.
func (p *pace) choose(size, sparse int) Form {
	plain := Plain
	if float64(sparse) < worth*float64(size) {
		plain = Sparse
	}
	size64 := float64(size)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mode == Never:
		return plain
	case p.mode == Always:
		return Zstd
	case p.link.rate() == 0 || p.link.rate() > fastZstd || size < smallZstd:
		return plain
	case p.zstd.rate() == 0:
		return Zstd
	case p.wait > 0:
		if p.wait--; p.wait == 0 && p.link.rate() < p.zstd.rate() {
			return Zstd // a trial: what comes now may be of another kind
		}
		return plain
	}
	rest := size64
	if plain == Sparse {
		rest = float64(sparse)
	}
	if size64/p.zstd.rate()+p.ratio*size64/p.link.rate() < rest/p.link.rate() {
		p.pause = 0
		return Zstd
	}
	p.backOff()
	return plain
}

func (p *pace) backOff() {
	p.pause = min(max(2*p.pause, 1), maxPause)
	p.wait = p.pause
}

// compressed notes what zstd did with a frame.
func (p *pace) compressed(in, out int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ratio := float64(out) / float64(in)
	if p.zstd.rate() == 0 {
		p.ratio = ratio
	}
	p.zstd.add(in, took)
	p.ratio = (p.ratio + ratio) / 2
	if ratio > worth {
		p.backOff()
	}
}

// sent notes what a lane did with a frame.
func (p *pace) sent(bytes int, took time.Duration) {
	p.mu.Lock()
	p.link.add(bytes, took)
	p.mu.Unlock()
}

// speed is a mean over about the last twenty frames. It divides sums, so that a frame which only fell into a buffer does not
// count as a fast link.
type speed struct{ bytes, seconds float64 }

func (s *speed) add(bytes int, took time.Duration) {
	const keep = 0.95
	s.bytes = s.bytes*keep + float64(bytes)
	s.seconds = s.seconds*keep + took.Seconds()
}

// rate is in bytes a second, 0 where nothing is known.
func (s *speed) rate() float64 {
	if s.seconds <= 0 {
		return 0
	}
	return s.bytes / s.seconds
}
