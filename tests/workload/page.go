package main

// What forked children run, which is most of this file, splits no stack: a child that Go did not make has a runtime that
// is one thread of many, and may only compute and make raw system calls.

const (
	pageSize = 4096
	words    = pageSize / 8
)

// page says in its first word whose it is, in its second how often it was written; the rest follows from the two.
type page [words]uint64

//go:nosplit
//go:norace
func (p *page) fill(identity, version uint64) {
	p[0], p[1] = identity, version
	word := identity ^ version<<40
	for i := 2; i < words; i++ {
		word = next(word)
		p[i] = word
	}
}

// wrong is the first word that is not what fill writes, -1 if there is none.
//
//go:nosplit
//go:norace
func (p *page) wrong(identity, version uint64) (at int, want uint64) {
	if p[0] != identity {
		return 0, identity
	}
	if p[1] != version {
		return 1, version
	}
	word := identity ^ version<<40
	for i := 2; i < words; i++ {
		if word = next(word); p[i] != word {
			return i, word
		}
	}
	return -1, 0
}

// dirt is the first word that is not zero, -1 if there is none.
//
//go:nosplit
//go:norace
func (p *page) dirt() int {
	for i := range p {
		if p[i] != 0 {
			return i
		}
	}
	return -1
}

// next is xorshift64: fast, never zero, and nothing a compressor can use.
//
//go:nosplit
func next(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	return x
}
