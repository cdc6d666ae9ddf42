package pages

import (
	"encoding/binary"
	"math/bits"

	"github.com/livemigrate/migrate/internal/memory"
)

// The sparse form of a page is a bitmap of its 512 words of 8 bytes (64 bytes; bit i of word j of it is the page's word
// 64*j+i), then the words that are not zero. Heaps are full of zero words (short integers, empty fields, ends of blocks),
// and taking them out costs about as much as copying, so that it pays on links where no compressor does.
const (
	pageWords  = memory.PageSize / 8
	bitmapSize = pageWords / 8
)

// sparseEstimate is the size that the pages would have in sparse form, from a sample: each 8th page, of it each 7th word
// (an odd stride, since structures repeat at even ones).
func sparseEstimate(pages []byte) int {
	words, zero := 0, 0
	for p := 0; p < len(pages); p += 8 * memory.PageSize {
		page := pages[p : p+memory.PageSize]
		for w := 0; w < pageWords; w += 7 {
			words++
			if binary.LittleEndian.Uint64(page[w*8:]) == 0 {
				zero++
			}
		}
	}
	if words == 0 {
		return 0
	}
	return len(pages)/memory.PageSize*bitmapSize + int(int64(len(pages))*int64(words-zero)/int64(words))
}

// appendSparse appends pages in sparse form. It gives up, with false, where that would need more than dst has room for.
func appendSparse(dst, pages []byte) ([]byte, bool) {
	le := binary.LittleEndian
	for ; len(pages) >= memory.PageSize; pages = pages[memory.PageSize:] {
		n := len(dst)
		if cap(dst)-n < bitmapSize+memory.PageSize {
			return dst, false
		}
		out := dst[n : n+bitmapSize+memory.PageSize]
		at := bitmapSize
		for j := range bitmapSize / 8 {
			// Each word is written, and the next one over it if it was zero: a branch here would be guessed wrong half the time.
			group := (*[512]byte)(pages[j*512:])
			var mask uint64
			for i := range 64 {
				w := le.Uint64(group[i*8:])
				le.PutUint64(out[at:], w)
				set := (w | -w) >> 63
				mask |= set << i
				at += int(set) * 8
			}
			le.PutUint64(out[j*8:], mask)
		}
		dst = dst[:n+at]
	}
	return dst, true
}

// expandSparse fills pages from their sparse form; false where that is too short or too long.
func expandSparse(pages, body []byte) bool {
	le := binary.LittleEndian
	for ; len(pages) >= memory.PageSize; pages = pages[memory.PageSize:] {
		if len(body) < bitmapSize {
			return false
		}
		bitmap := body[:bitmapSize]
		body = body[bitmapSize:]
		page := (*[memory.PageSize]byte)(pages)
		clear(page[:])
		for j := range bitmapSize / 8 {
			mask := le.Uint64(bitmap[j*8:])
			n := bits.OnesCount64(mask) * 8
			if len(body) < n {
				return false
			}
			if mask == 1<<64-1 {
				copy(page[j*512:j*512+512], body)
			} else {
				words := body[:n]
				for ; mask != 0; mask &= mask - 1 {
					le.PutUint64(page[(j*64+bits.TrailingZeros64(mask))*8:], le.Uint64(words))
					words = words[8:]
				}
			}
			body = body[n:]
		}
	}
	return len(body) == 0
}
