package filesync

import (
	"fmt"
	"os"
)

// table is the index's array of slots on disk, with the blocks that were used last kept in memory. A walk meets inodes
// in about the order they were made in, and the slots of 64 neighbours lie in one block, so a block serves many files.
type table struct {
	file   *os.File
	slots  uint64
	blocks [cachedBlocks]*block
}

const (
	blockSlots   = 64
	cachedBlocks = 512 // 3 MB at most
)

type block struct {
	number uint64
	dirty  bool
	data   [blockSlots * recordSize]byte
}

// home is the slot where an inode's record would be best.
func (t *table) home(id inode) uint64 {
	spread := (id.ino/blockSlots + id.dev*0x85ebca77) * 0x9e3779b97f4a7c15 >> 20
	return (spread*blockSlots + id.ino%blockSlots) & (t.slots - 1)
}

// slot returns a slot's bytes, valid until the next call. With write set they will be written to the file.
func (t *table) slot(i uint64, write bool) ([]byte, error) {
	number := i / blockSlots
	b := t.blocks[number%cachedBlocks]
	if b == nil || b.number != number {
		if b == nil {
			b = &block{}
			t.blocks[number%cachedBlocks] = b
		} else if err := t.store(b); err != nil {
			return nil, err
		}
		b.number = 1<<64 - 1 // none, should reading fail
		if _, err := t.file.ReadAt(b.data[:], t.offset(number*blockSlots)); err != nil {
			return nil, fmt.Errorf("read index: %w", err)
		}
		b.number = number
	}
	b.dirty = b.dirty || write
	at := i % blockSlots * recordSize
	return b.data[at : at+recordSize], nil
}

func (t *table) store(b *block) error {
	if !b.dirty {
		return nil
	}
	b.dirty = false
	if _, err := t.file.WriteAt(b.data[:], t.offset(b.number*blockSlots)); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// flush writes what is kept in memory to the file.
func (t *table) flush() error {
	for _, b := range &t.blocks {
		if b == nil {
			continue
		}
		if err := t.store(b); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) offset(slot uint64) int64 { return headerSpace + int64(slot)*recordSize }
