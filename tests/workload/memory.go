package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"
)

// memory is pages whose every word follows from the page's number and how often it was rewritten.
type memory struct {
	mu       sync.Mutex
	pages    []byte
	versions []uint32
	size     int // of a page
}

func startMemory(megabytes, rate int) (*memory, error) {
	pages, err := syscall.Mmap(-1, 0, megabytes<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d MB: %w", megabytes, err)
	}
	m := &memory{pages: pages, size: os.Getpagesize()}
	m.versions = make([]uint32, len(pages)/m.size)
	for i := range m.versions {
		m.write(i)
	}
	if rate > 0 {
		go m.rewrite(rate)
	}
	return m, nil
}

// rewrite writes random pages, rate of them a second, in slices of a millisecond or more.
func (m *memory) rewrite(rate int) {
	owed := 0.0
	last := time.Now()
	for {
		time.Sleep(time.Millisecond)
		now := time.Now()
		// A pause of the whole container is not made up for.
		owed += float64(rate) * min(now.Sub(last), 20*time.Millisecond).Seconds()
		last = now
		m.mu.Lock()
		for ; owed >= 1; owed-- {
			i := rand.IntN(len(m.versions))
			m.versions[i]++
			m.write(i)
		}
		m.mu.Unlock()
	}
}

func (m *memory) write(i int) {
	page := m.pages[i*m.size : (i+1)*m.size]
	word := m.seed(i)
	for at := 0; at < len(page); at += 8 {
		word = next(word)
		binary.NativeEndian.PutUint64(page[at:], word)
	}
}

func (m *memory) check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.versions {
		page := m.pages[i*m.size : (i+1)*m.size]
		word := m.seed(i)
		for at := 0; at < len(page); at += 8 {
			word = next(word)
			if got := binary.NativeEndian.Uint64(page[at:]); got != word {
				return fmt.Errorf("page %d, byte %d: %#x, not %#x", i, at, got, word)
			}
		}
	}
	return nil
}

func (m *memory) seed(i int) uint64 { return uint64(i+1)<<32 | uint64(m.versions[i]+1) }
