package unlinked

import (
	"math/bits"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// digests are what is known of a file's blocks at the peer, in chunks, so that a block costs the 16 bytes of its digest. A block
// without one is a hole there.
type digests map[int64]*chunk // by offset over chunkSize

const (
	chunkBlocks = 256
	chunkSize   = chunkBlocks * blockSize
	chunkMemory = chunkBlocks*16 + 3*chunkBlocks/8
)

// digestMemory is what the digests of a file may take, in bytes: a chunk for each 32 MB of its size, but no
// more than it has pages.
func digestMemory(st *fs.Stat) int64 {
	return (1 + min(st.Size/chunkSize, st.Blocks*512/4096)) * chunkMemory
}

// chunk is of blocks in a row.
type chunk struct {
	sums  [chunkBlocks]xxh3.Uint128
	known blockSet // those that have a digest
	seen  blockSet // in the pass that runs
	doubt blockSet // sent, or made a hole, and not yet known to have arrived
}

type blockSet [chunkBlocks / 64]uint64

func (b *blockSet) has(i int64) bool { return b[i/64]>>(i%64)&1 == 1 }
func (b *blockSet) add(i int64)      { b[i/64] |= 1 << (i % 64) }

// see notes a block of this content, and tells whether it has to be sent, and whether the peer may have something else there.
func (d digests) see(off int64, sum xxh3.Uint128) (send, had bool) {
	c := d[off/chunkSize]
	if c == nil {
		c = &chunk{}
		d[off/chunkSize] = c
	}
	i := off % chunkSize / blockSize
	had = c.known.has(i) || c.doubt.has(i)
	c.seen.add(i)
	if c.known.has(i) && !c.doubt.has(i) && c.sums[i] == sum {
		return false, had
	}
	c.sums[i] = sum
	c.known.add(i)
	c.doubt.add(i)
	return true, had
}

// begin starts a pass: nothing is seen yet.
func (d digests) begin() {
	for _, c := range d {
		c.seen = blockSet{}
	}
}

// rest gives the blocks that the peer may have something in and that this pass has not seen: they are holes from now on.
func (d digests) rest(hole func(off int64) error) error {
	for at, c := range d {
		for word := range c.seen {
			gone := (c.known[word] | c.doubt[word]) &^ c.seen[word]
			c.known[word] &^= gone
			c.doubt[word] |= gone
			for ; gone != 0; gone &= gone - 1 {
				if err := hole(at*chunkSize + int64(word*64+bits.TrailingZeros64(gone))*blockSize); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// confirm says that all that was sent has arrived.
func (d digests) confirm() {
	for at, c := range d {
		if c.doubt = (blockSet{}); c.known == c.doubt {
			delete(d, at)
		}
	}
}
