package pages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory"
)

// Slots is a run of slots of the store. Slot s is the page at s*4096 of the store's file; slot 0 is the page of zeros,
// which is never sent.
type Slots struct {
	First uint64
	Pages uint64
}

// A frame is one byte string that carries pages; all numbers are little-endian:
//
//	┌──────────────┬──────────────┬─────────┬──────────┬──────────┬───────────┬───────────┬─────────────┬──────┐
//	│ version u32  │ xxh3-64 u64  │ form u8 │ 0, 0, 0  │ runs u32 │ pages u32 │ bytes u32 │ runs × 8 B  │ body │
//	└──────────────┴──────────────┴─────────┴──────────┴──────────┴───────────┴───────────┴─────────────┴──────┘
//	   digest: of everything behind it         bytes: of the body            run: slot u32, pages u32
const (
	frameVersion = 0x3150474d // "MGP1"
	headerSize   = 28
	runSize      = 8

	// FramePages is how many pages a frame carries at most: 1 MiB of memory.
	FramePages = 256
	// MaxFrame is the size of the largest frame in bytes.
	MaxFrame = headerSize + FramePages*runSize + FramePages*memory.PageSize
	// MaxSlot is the largest slot that a frame can name: 16 TiB of memory.
	MaxSlot = 1<<32 - 1
)

// Form is how a frame's pages are written.
type Form uint8

// The forms of a body.
const (
	Plain  Form = iota // the pages as they are
	Sparse             // without their zero words: see sparse.go
	Zstd               // one zstd frame of all pages
)

func (f Form) String() string {
	switch f {
	case Plain:
		return "plain"
	case Sparse:
		return "sparse"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("form %d", uint8(f))
}

// What a frame is refused for. Nothing of a refused frame is stored.
var (
	// ErrFrameVersion: the first word is not this version's: another release, or no frame of pages at all.
	ErrFrameVersion = errors.New("frame of pages has another version")
	// ErrFrameDigest: a byte was altered on the way.
	ErrFrameDigest = errors.New("frame of pages was altered")
	// ErrFrameLength: header, runs and body do not add up.
	ErrFrameLength = errors.New("frame of pages has lengths that disagree")
	// ErrFrameForm: the body is in a form that is not known here, or does not decode in it.
	ErrFrameForm = errors.New("frame of pages does not decode")
	// ErrFrameSlot: a slot is 0, beyond the limit of the store, or there twice.
	ErrFrameSlot = errors.New("frame of pages names a wrong slot")
)

// errRefused names the sentinel, and what was wrong in this frame.
func errRefused(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(format, args...))
}

// seal writes header and runs in front of the body, which lies at frame[headroom:], and returns the frame.
func seal(frame []byte, form Form, runs []Slots, pages int) []byte {
	start := headroom - headerSize - len(runs)*runSize
	frame = frame[start:]
	le := binary.LittleEndian
	le.PutUint32(frame, frameVersion)
	frame[12], frame[13], frame[14], frame[15] = byte(form), 0, 0, 0
	le.PutUint32(frame[16:], uint32(len(runs)))
	le.PutUint32(frame[20:], uint32(pages))
	le.PutUint32(frame[24:], uint32(len(frame)-headerSize-len(runs)*runSize))
	for i, r := range runs {
		le.PutUint32(frame[headerSize+i*runSize:], uint32(r.First))
		le.PutUint32(frame[headerSize+i*runSize+4:], uint32(r.Pages))
	}
	le.PutUint64(frame[4:], xxh3.Hash(frame[12:]))
	return frame
}

// headroom is the room that a buffer leaves in front of the body for the largest header. It keeps the body aligned.
const headroom = headerSize + FramePages*runSize + (64-(headerSize+FramePages*runSize)%64)%64

// parsed is a frame whose header and runs are proven; the body is not decoded.
type parsed struct {
	form  Form
	pages int
	runs  []Slots
	body  []byte
}

// parse checks everything of a frame but the body's form. runs and order are scratch.
func parse(frame []byte, limit uint64, runs, order []Slots) (parsed, error) {
	le := binary.LittleEndian
	if len(frame) < 4 {
		return parsed{}, errRefused(ErrFrameLength, "%d bytes are no header", len(frame))
	}
	if v := le.Uint32(frame); v != frameVersion {
		return parsed{}, errRefused(ErrFrameVersion, "%#x, not %#x", v, uint32(frameVersion))
	}
	if len(frame) < headerSize || len(frame) > MaxFrame {
		return parsed{}, errRefused(ErrFrameLength, "%d bytes; a frame has %d to %d", len(frame), headerSize, MaxFrame)
	}
	if want, got := le.Uint64(frame[4:]), xxh3.Hash(frame[12:]); want != got {
		return parsed{}, errRefused(ErrFrameDigest, "its digest is %#x, not %#x", got, want)
	}
	p := parsed{form: Form(frame[12])}
	count, pages, bytes := le.Uint32(frame[16:]), le.Uint32(frame[20:]), le.Uint32(frame[24:])
	switch {
	case frame[13]|frame[14]|frame[15] != 0:
		return parsed{}, errRefused(ErrFrameForm, "the reserved bytes are not zero")
	case pages == 0 || pages > FramePages || count == 0 || count > pages:
		return parsed{}, errRefused(ErrFrameLength, "%d pages in %d runs", pages, count)
	case uint64(len(frame)) != headerSize+uint64(count)*runSize+uint64(bytes):
		return parsed{}, errRefused(ErrFrameLength, "%d bytes with %d runs and a body of %d", len(frame), count, bytes)
	}
	p.pages, p.body = int(pages), frame[headerSize+int(count)*runSize:]
	var err error
	p.runs, err = parseRuns(frame[headerSize:len(frame)-len(p.body)], uint64(pages), limit, runs, order)
	return p, err
}

// parseRuns reads the runs, and proves that they hold the pages and name each slot once, within the limit.
func parseRuns(b []byte, pages, limit uint64, runs, order []Slots) ([]Slots, error) {
	runs = runs[:0]
	sum := uint64(0)
	for ; len(b) > 0; b = b[runSize:] {
		r := Slots{First: uint64(binary.LittleEndian.Uint32(b)), Pages: uint64(binary.LittleEndian.Uint32(b[4:]))}
		if r.First == 0 {
			return nil, errRefused(ErrFrameSlot, "slot 0 is the zero page")
		}
		if r.Pages == 0 || r.Pages > pages-sum {
			return nil, errRefused(ErrFrameLength, "the runs do not hold %d pages", pages)
		}
		if r.First+r.Pages-1 > limit {
			return nil, errRefused(ErrFrameSlot, "slots %d to %d, the last of the store is %d", r.First, r.First+r.Pages-1, limit)
		}
		sum += r.Pages
		runs = append(runs, r)
	}
	if sum != pages {
		return nil, errRefused(ErrFrameLength, "the runs hold %d pages, not %d", sum, pages)
	}
	order = append(order[:0], runs...)
	slices.SortFunc(order, func(a, b Slots) int { return int(int64(a.First) - int64(b.First)) })
	for i := 1; i < len(order); i++ {
		if order[i].First < order[i-1].First+order[i-1].Pages {
			return nil, errRefused(ErrFrameSlot, "slot %d is there twice", order[i].First)
		}
	}
	return runs, nil
}
