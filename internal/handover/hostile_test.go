package handover

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// hostileLimit is the last slot of the peer's store.
const hostileLimit = 99

// pageFrame is a frame of zero pages in those slots, each a run of its own, as package pages draws it.
func pageFrame(slots ...uint32) []byte {
	le := binary.LittleEndian
	frame := append([]byte("MGP1"), make([]byte, 24)...)
	le.PutUint32(frame[16:], uint32(len(slots)))
	le.PutUint32(frame[20:], uint32(len(slots)))
	le.PutUint32(frame[24:], uint32(len(slots)*pageSize))
	for _, slot := range slots {
		frame = le.AppendUint32(le.AppendUint32(frame, slot), 1)
	}
	return sealed(append(frame, make([]byte, len(slots)*pageSize)...))
}

func sealed(frame []byte) []byte {
	binary.LittleEndian.PutUint64(frame[4:], xxh3.Hash(frame[12:]))
	return frame
}

// hostileFrames are frames that no source of ours sends, by what the peer has to say of them.
func hostileFrames() map[string]struct {
	frame []byte
	says  error
} {
	altered := pageFrame(1, 2)
	altered[len(altered)-1] ^= 1
	large := sealed(append(pageFrame(1), make([]byte, pages.MaxFrame)...))
	return map[string]struct {
		frame []byte
		says  error
	}{
		"an altered byte":              {altered, pages.ErrFrameDigest},
		"a slot behind the store":      {pageFrame(1, hostileLimit+1), pages.ErrFrameSlot},
		"the slot of no page":          {pageFrame(0), pages.ErrFrameSlot},
		"a slot twice":                 {pageFrame(7, 7), pages.ErrFrameSlot},
		"more than a frame may have":   {large, pages.ErrFrameLength},
		"fewer pages than it says":     {sealed(pageFrame(1, 2)[:28+16+pageSize]), pages.ErrFrameLength},
		"the frame of another program": {append([]byte("MGP9"), pageFrame(1)[4:]...), pages.ErrFrameVersion},
	}
}

// Frames of pages that are not what they should be, inside the freeze: the peer says what is wrong with the one, and the service
// goes on where it was.
func TestHostileFrameOfPagesKeepsTheSource(t *testing.T) {
	for name, hostile := range hostileFrames() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode, w.hostile = newCable(-1), StopCopy, hostile.frame
				newTwinMemory(w, 0)
				result := w.push(t.Context(), true)
				if result.Outcome != report.Kept || strings.Count(result.Error, hostile.says.Error()) != 1 {
					t.Errorf("got %v, %q", result.Outcome, result.Error)
				}
				if source, peer := w.states(); source != running || peer != absent {
					t.Errorf("source %s, peer %s", source, peer)
				}
			})
		})
	}
}

// While the container runs there is another way for its memory, and the report says why it went that way.
func TestHostileFrameOfPagesInARoundCostsNoMove(t *testing.T) {
	for name, hostile := range hostileFrames() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode, w.hostile = newCable(-1), PreCopy, hostile.frame
				newTwinMemory(w, twinPages)
				result := w.push(t.Context(), true)
				if result.Outcome != report.Moved || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], hostile.says.Error()) {
					t.Errorf("got %v, %q", result.Outcome, result.Warnings)
				}
			})
		})
	}
}

// A peer that tells more of what it has than it was sent is not listened to for long.
func TestHostileWordOfHeldPagesIsRefused(t *testing.T) {
	ones := bytes.Repeat([]byte{0xff}, 8)
	for name, c := range map[string]struct {
		held []*wire.PagesHeld
		want []Slots // nil: it is malformed
	}{
		"as it should be":          {[]*wire.PagesHeld{{Bits: ones, More: true}, {Slot: 64, Bits: []byte{0x01}}}, []Slots{{0, 65}}},
		"the last byte is longer":  {[]*wire.PagesHeld{{Slot: 96, Bits: []byte{0xff}}}, []Slots{{96, hostileLimit - 95}}},
		"a slot that was not sent": {[]*wire.PagesHeld{{Slot: 96, Bits: []byte{0xff, 0xff}}}, nil},
		"all of them not":          {[]*wire.PagesHeld{{Slot: 1 << 40, Bits: []byte{0xff}}}, nil},
		"behind the last number":   {[]*wire.PagesHeld{{Slot: 1<<64 - 8, Bits: []byte{0, 0xff}}}, nil},
		"the same again":           {[]*wire.PagesHeld{{Bits: ones, More: true}, {Bits: ones}}, nil},
		"with a gap":               {[]*wire.PagesHeld{{Bits: ones, More: true}, {Slot: 72, Bits: []byte{0x01}}}, nil},
		"nothing, and more":        {[]*wire.PagesHeld{{More: true}}, nil},
		"zeros without an end":     {[]*wire.PagesHeld{{Bits: make([]byte, 128), More: true}, {Slot: 1024, Bits: make([]byte, 8), More: true}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, peer := newSessions(newCable(-1))
				ours, theirs := newTalk(t.Context(), source.Control(), func(error) {}), newTalk(t.Context(), peer.Control(), func(error) {})
				for _, held := range c.held {
					if err := theirs.send(t.Context(), &wire.Message{Body: &wire.Message_PagesHeld{PagesHeld: held}}); err != nil {
						t.Fatal(err)
					}
				}
				_, have, err := readHeld(t.Context(), ours, hostileLimit)
				if !slices.Equal(have, c.want) || errors.Is(err, wire.ErrMalformed) != (c.want == nil) {
					t.Errorf("got %v, %v", have, err)
				}
				ours.close()
				theirs.close()
				_, _ = source.Close(), peer.Close()
			})
		})
	}
}
