package keeper

import (
	"encoding/binary"
	"sync"

	"github.com/livemigrate/migrate/internal/memory/pages"
)

// came is which slots of a store were written to since a round began: a bit for each, 32 KB for a gigabyte of memory. The zero value is
// of none. Its methods may be called by several goroutines.
type came struct {
	mu    sync.Mutex
	words []uint64
}

func (c *came) add(s pages.Slots) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := s.First + s.Pages - 1
	if missing := int(last/64) + 1 - len(c.words); missing > 0 {
		c.words = append(c.words, make([]uint64, missing)...)
	}
	for slot := s.First; slot <= last; slot++ {
		c.words[slot/64] |= 1 << (slot % 64)
	}
}

// begin begins another round.
func (c *came) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.words)
}

// bits are those from a slot on, a multiple of 64, the lowest of each byte first, in at most size bytes; none behind the last slot.
func (c *came) bits(slot uint64, size int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []byte
	for i := slot / 64; i < uint64(len(c.words)) && len(all) < size; i++ {
		all = binary.LittleEndian.AppendUint64(all, c.words[i])
	}
	return all[:min(len(all), size)]
}
