package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// memory is pages whose every word follows from the page's number and how often it was rewritten.
type memory struct {
	memoryOptions
	mu       sync.Mutex
	pages    []byte
	versions []uint32
	size     int // of a page
	written  atomic.Uint64
	copies   []*memoryCopy
}

type memoryOptions struct {
	megabytes int
	rate      int  // pages rewritten a second
	shared    bool // MAP_SHARED
	half      bool // of each line of the processor's cache, zeros
	forks     int
}

func memoryFlags(args []string) (memoryOptions, error) {
	var o memoryOptions
	flags := flag.NewFlagSet("memory", flag.ExitOnError)
	flags.IntVar(&o.rate, "rate", 0, "pages rewritten a second")
	flags.BoolVar(&o.shared, "shared", false, "memory that processes can share")
	flags.BoolVar(&o.half, "half", false, "zeros in every second half of 64 bytes, for compressors")
	flags.IntVar(&o.forks, "forks", 0, "children with a copy of the memory, which they don't write")
	_ = flags.Parse(args)
	var err error
	if o.megabytes, err = strconv.Atoi(flags.Arg(0)); err != nil {
		return o, fmt.Errorf("read size: %w", err)
	}
	return o, nil
}

func startMemory(o memoryOptions) (*memory, error) {
	kind := syscall.MAP_PRIVATE
	if o.shared {
		kind = syscall.MAP_SHARED
	}
	pages, err := syscall.Mmap(-1, 0, o.megabytes<<20, syscall.PROT_READ|syscall.PROT_WRITE, kind|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d MB: %w", o.megabytes, err)
	}
	m := &memory{memoryOptions: o, pages: pages, size: os.Getpagesize()}
	m.versions = make([]uint32, len(pages)/m.size)
	for i := range m.versions {
		m.write(i)
	}
	for range o.forks {
		c, err := m.fork()
		if err != nil {
			return nil, fmt.Errorf("fork: %w", err)
		}
		m.copies = append(m.copies, c)
	}
	if o.rate > 0 {
		go m.rewrite(o.rate)
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
			m.written.Add(1)
		}
		m.mu.Unlock()
	}
}

// count is how many pages were rewritten.
func (m *memory) count() uint64 { return m.written.Load() }

func (m *memory) write(i int) {
	page := m.pages[i*m.size : (i+1)*m.size]
	word := m.seed(i)
	for at := 0; at < len(page); at += 8 {
		word = next(word)
		if !m.zero(at) {
			binary.NativeEndian.PutUint64(page[at:], word)
		}
	}
}

func (m *memory) zero(at int) bool { return m.half && at%64 >= 32 }

func (m *memory) check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.versions {
		page := m.pages[i*m.size : (i+1)*m.size]
		word := m.seed(i)
		for at := 0; at < len(page); at += 8 {
			word = next(word)
			want := word
			if m.zero(at) {
				want = 0
			}
			if got := binary.NativeEndian.Uint64(page[at:]); got != want {
				return fmt.Errorf("page %d, byte %d: %#x, not %#x", i, at, got, want)
			}
		}
	}
	for n, c := range m.copies {
		if err := c.check(); err != nil {
			return fmt.Errorf("child %d: %w", n, err)
		}
	}
	return nil
}

func (m *memory) seed(i int) uint64 { return uint64(i+1)<<32 | uint64(m.versions[i]+1) }
