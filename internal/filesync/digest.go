package filesync

import "github.com/zeebo/blake3"

// Digest is BLAKE3 of a file's content: of the content itself up to one chunk, else of the digests of its chunks one after
// the other. So a file patched in a few chunks is verified without reading the rest again.
type Digest [32]byte

const chunkSize = 1 << 20

func digestOf(b []byte) Digest { return blake3.Sum256(b) }

// summer makes a file's digest from those of its chunks, in order.
type summer struct {
	n     int64
	first Digest
	hash  *blake3.Hasher
	list  []Digest // the chunks' digests, while there are at most maxListed
}

// maxListed bounds the files whose chunks are remembered for patching and going on: 1 TiB, or 32 MiB of digests.
const maxListed = 1 << 20

func (s *summer) reset() {
	s.n, s.list = 0, nil
	if s.hash != nil {
		s.hash.Reset()
	}
}

func (s *summer) add(d Digest) {
	switch s.n {
	case 0:
		s.first = d
	case 1:
		if s.hash == nil {
			s.hash = blake3.New()
		}
		_, _ = s.hash.Write(s.first[:])
		_, _ = s.hash.Write(d[:])
	default:
		_, _ = s.hash.Write(d[:])
	}
	s.n++
	if s.n <= maxListed {
		s.list = append(s.list, d)
	} else {
		s.list = nil
	}
}

func (s *summer) sum() (d Digest) {
	switch s.n {
	case 0:
		return digestOf(nil)
	case 1:
		return s.first
	}
	s.hash.Sum(d[:0])
	return d
}

// chunks says how many chunks a file of a size has.
func chunks(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// chunkLen is the length of one chunk of a file.
func chunkLen(size, i int64) int { return int(min(chunkSize, size-i*chunkSize)) }
