package pages

import (
	"testing"
	"time"
)

const frameBytes = 1 << 20

// at is the time that a frame takes at so many megabytes a second.
func at(speed int) time.Duration { return time.Second * frameBytes / time.Duration(speed*1e6) }

func TestFramesAreCompressedWhereThatIsFasterThanTheLink(t *testing.T) {
	for name, c := range map[string]struct {
		mode         Compression
		link         int // MB/s; 0: nothing was sent yet
		zstd         int
		ratio        int // percent
		sparse, size int
		want         Form
	}{
		"slow link":                   {Auto, 100, 500, 40, frameBytes, frameBytes, Zstd},
		"slow link, little to gain":   {Auto, 100, 500, 85, frameBytes, frameBytes, Plain},
		"link as fast as the gain":    {Auto, 400, 500, 40, frameBytes, frameBytes, Plain},
		"fast link":                   {Auto, 3000, 500, 5, frameBytes, frameBytes, Plain},
		"fast link, zero words":       {Auto, 3000, 500, 5, frameBytes / 2, frameBytes, Sparse},
		"zero words are gain enough":  {Auto, 200, 500, 45, frameBytes / 2, frameBytes, Sparse},
		"better than zero words":      {Auto, 100, 500, 10, frameBytes / 2, frameBytes, Zstd},
		"unknown link":                {Auto, 0, 0, 0, frameBytes, frameBytes, Plain},
		"unknown data on a slow link": {Auto, 100, 0, 0, frameBytes, frameBytes, Zstd},
		"few pages":                   {Auto, 100, 500, 10, 4096, 4096, Plain},
		"never":                       {Never, 10, 500, 10, frameBytes, frameBytes, Plain},
		"never, zero words":           {Never, 10, 500, 10, frameBytes / 2, frameBytes, Sparse},
		"always":                      {Always, 5000, 100, 99, frameBytes, frameBytes, Zstd},
	} {
		t.Run(name, func(t *testing.T) {
			p := pace{mode: c.mode}
			if c.link > 0 {
				p.sent(frameBytes, at(c.link))
			}
			if c.zstd > 0 {
				p.compressed(frameBytes, frameBytes*c.ratio/100, at(c.zstd))
			}
			if got := p.choose(c.size, c.sparse); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestIncompressibleDataIsTriedSeldom(t *testing.T) {
	p := pace{}
	p.sent(frameBytes, at(50))
	tries := 0
	for range 200 {
		if p.choose(frameBytes, frameBytes) == Zstd {
			tries++
			p.compressed(frameBytes, frameBytes, at(800))
		}
	}
	if tries < 5 || tries > 25 {
		t.Errorf("%d tries in 200 frames", tries)
	}
}
