package pages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/hogtest"
)

const testLimit = 1 << 20

// build makes a frame as a worker does.
func build(t testing.TB, mode Compression, kind hogtest.Kind, slots ...uint32) []byte {
	t.Helper()
	w, err := newWorker()
	if err != nil {
		t.Fatal(err)
	}
	w.slots = slots
	for i, slot := range slots {
		at := headroom + i*memory.PageSize
		hogtest.Page(w.frame[at:at+memory.PageSize], kind, 7, uint64(slot))
	}
	return w.encode(&pace{mode: mode})
}

func decoder(t testing.TB) *Decoder {
	t.Helper()
	d, err := NewDecoder(testLimit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func decode(d *Decoder, frame []byte) (map[uint64][]byte, error) {
	got := map[uint64][]byte{}
	err := d.Decode(frame, func(s Slots, b []byte) error {
		if uint64(len(b)) != s.Pages*memory.PageSize {
			return fmt.Errorf("%d bytes for %d pages", len(b), s.Pages)
		}
		for i := range s.Pages {
			got[s.First+i] = bytes.Clone(b[i*memory.PageSize : (i+1)*memory.PageSize])
		}
		return nil
	})
	return got, err
}

func TestFrameBringsEveryPageToItsSlot(t *testing.T) {
	many := make([]uint32, FramePages)
	for i := range many {
		many[i] = uint32(3*i + 1)
	}
	for _, c := range []struct {
		mode  Compression
		kind  hogtest.Kind
		form  Form
		slots []uint32
	}{
		{Never, hogtest.Random, Plain, []uint32{1}},
		{Never, hogtest.Random, Plain, many},
		{Never, hogtest.Half, Sparse, []uint32{9, 10, 11, 4, testLimit}},
		{Never, hogtest.Half, Sparse, many},
		{Never, hogtest.Zeros, Sparse, []uint32{5, 6}}, // not sent by a round, but right
		{Always, hogtest.Text, Zstd, many},
		{Always, hogtest.Half, Zstd, many},
		{Always, hogtest.Random, Plain, many},
	} {
		t.Run(fmt.Sprintf("%s/%v/%d", c.kind, c.form, len(c.slots)), func(t *testing.T) {
			frame := build(t, c.mode, c.kind, c.slots...)
			if f := Form(frame[12]); f != c.form {
				t.Errorf("the form is %v, not %v", f, c.form)
			}
			if len(frame) > MaxFrame {
				t.Errorf("%d bytes are more than a frame has", len(frame))
			}
			got, err := decode(decoder(t), frame)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(c.slots) {
				t.Errorf("%d pages, not %d", len(got), len(c.slots))
			}
			want := make([]byte, memory.PageSize)
			for _, slot := range c.slots {
				hogtest.Page(want, c.kind, 7, uint64(slot))
				if !bytes.Equal(got[uint64(slot)], want) {
					t.Errorf("slot %d is wrong", slot)
				}
			}
		})
	}
}

func TestHalfOfTheMemoryZeroIsHalfOfTheBytes(t *testing.T) {
	slots := make([]uint32, FramePages)
	for i := range slots {
		slots[i] = uint32(i + 1)
	}
	if n, most := len(build(t, Never, hogtest.Half, slots...)), FramePages*memory.PageSize*53/100; n > most {
		t.Errorf("%d bytes, want at most %d", n, most)
	}
}

func TestEveryAlteredByteIsSeen(t *testing.T) {
	d := decoder(t)
	for _, mode := range []Compression{Never, Always} {
		frame := build(t, mode, hogtest.Half, 1, 2, 8)
		for i := range frame {
			frame[i] ^= 0x10
			got, err := decode(d, frame)
			if len(got) > 0 || !errors.Is(err, ErrFrameDigest) && !errors.Is(err, ErrFrameVersion) {
				t.Fatalf("byte %d altered: %d pages, %v", i, len(got), err)
			}
			frame[i] ^= 0x10
		}
		for n := range frame {
			if _, err := decode(d, frame[:n]); err == nil {
				t.Fatalf("the first %d bytes alone pass", n)
			}
		}
	}
}

func TestHostileFrameIsRefusedByName(t *testing.T) {
	le := binary.LittleEndian
	d := decoder(t)
	for name, c := range map[string]struct {
		alter func(frame []byte) []byte
		want  error
	}{
		"slot 0":           {func(f []byte) []byte { le.PutUint32(f[28:], 0); return f }, ErrFrameSlot},
		"beyond the limit": {func(f []byte) []byte { le.PutUint32(f[28:], testLimit); return f }, ErrFrameSlot},
		"slot twice":       {func(f []byte) []byte { le.PutUint32(f[36:], 2); return f }, ErrFrameSlot},
		"empty run":        {func(f []byte) []byte { le.PutUint32(f[32:], 0); return f }, ErrFrameLength},
		"long run":         {func(f []byte) []byte { le.PutUint32(f[32:], 3); return f }, ErrFrameLength},
		"huge run":         {func(f []byte) []byte { le.PutUint32(f[32:], 1<<32-1); return f }, ErrFrameLength},
		"short runs":       {func(f []byte) []byte { le.PutUint32(f[32:], 1); return f }, ErrFrameLength},
		"no pages":         {func(f []byte) []byte { le.PutUint32(f[20:], 0); return f }, ErrFrameLength},
		"too many pages":   {func(f []byte) []byte { le.PutUint32(f[20:], FramePages+1); return f }, ErrFrameLength},
		"other pages":      {func(f []byte) []byte { le.PutUint32(f[20:], 4); return f }, ErrFrameLength},
		"no runs":          {func(f []byte) []byte { le.PutUint32(f[16:], 0); return f }, ErrFrameLength},
		"many runs":        {func(f []byte) []byte { le.PutUint32(f[16:], 1<<31); return f }, ErrFrameLength},
		"other body":       {func(f []byte) []byte { le.PutUint32(f[24:], le.Uint32(f[24:])+1); return f }, ErrFrameLength},
		"trailing byte":    {func(f []byte) []byte { return append(f, 0) }, ErrFrameLength},
		"too large":        {func(f []byte) []byte { return append(f, make([]byte, MaxFrame)...) }, ErrFrameLength},
		"plain, but isn't": {func(f []byte) []byte { f[12] = byte(Plain); return f }, ErrFrameLength},
		"zstd, but isn't":  {func(f []byte) []byte { f[12] = byte(Zstd); return f }, ErrFrameForm},
		"unknown form":     {func(f []byte) []byte { f[12] = 77; return f }, ErrFrameForm},
		"reserved":         {func(f []byte) []byte { f[14] = 1; return f }, ErrFrameForm},
		"sparse, too long": {func(f []byte) []byte { f[44] |= 1; return f }, ErrFrameForm},
		"version":          {func(f []byte) []byte { f[0]++; return f }, ErrFrameVersion},
	} {
		t.Run(name, func(t *testing.T) {
			frame := c.alter(bytes.Clone(build(t, Never, hogtest.Half, 1, 2, 8)))
			le.PutUint64(frame[4:], xxh3.Hash(frame[12:])) // whoever made it knows the digest
			got, err := decode(d, frame)
			if len(got) > 0 || !errors.Is(err, c.want) {
				t.Errorf("%d pages, %v; want %v", len(got), err, c.want)
			}
		})
	}
}

// A zstd bomb ends at the size that the header allows.
func TestZstdBodyOfAnotherSizeIsRefused(t *testing.T) {
	d := decoder(t)
	big := build(t, Always, hogtest.Text, 1, 2, 3, 4)
	for pages := uint32(1); pages < 8; pages++ {
		frame := bytes.Clone(big)
		binary.LittleEndian.PutUint32(frame[20:], pages)
		binary.LittleEndian.PutUint32(frame[32:], pages)
		binary.LittleEndian.PutUint64(frame[4:], xxh3.Hash(frame[12:]))
		if _, err := decode(d, frame); pages != 4 && !errors.Is(err, ErrFrameForm) {
			t.Errorf("%d pages: %v", pages, err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, kind := range []hogtest.Kind{hogtest.Random, hogtest.Half, hogtest.Text} {
		f.Add(build(f, Never, kind, 1, 2, 8))
		f.Add(build(f, Always, kind, 1, 2, 8))
	}
	d := decoder(f)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) >= headerSize { // past the digest, or nothing but the digest is tried
			binary.LittleEndian.PutUint32(frame, frameVersion)
			binary.LittleEndian.PutUint64(frame[4:], xxh3.Hash(frame[12:]))
		}
		got, err := decode(d, frame)
		if err != nil && len(got) > 0 {
			t.Errorf("refused, with %d pages put: %v", len(got), err)
		}
		if err == nil && (len(got) == 0 || len(got) > FramePages) {
			t.Errorf("%d pages", len(got))
		}
		for slot := range got {
			if slot == 0 || slot > testLimit {
				t.Errorf("slot %d", slot)
			}
		}
	})
}

func BenchmarkSparse(b *testing.B) {
	pages := make([]byte, FramePages*memory.PageSize)
	for i := 0; i < len(pages); i += memory.PageSize {
		hogtest.Page(pages[i:i+memory.PageSize], hogtest.Half, 1, uint64(i))
	}
	out := make([]byte, 0, len(pages))
	b.Run("estimate", func(b *testing.B) {
		b.SetBytes(int64(len(pages)))
		for b.Loop() {
			sparseEstimate(pages)
		}
	})
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(pages)))
		for b.Loop() {
			out, _ = appendSparse(out[:0], pages)
		}
	})
	b.Run("expand", func(b *testing.B) {
		b.SetBytes(int64(len(pages)))
		for b.Loop() {
			if !expandSparse(pages, out) {
				b.Fatal("not sparse")
			}
		}
	})
	b.Run("digest", func(b *testing.B) {
		l := Ledger{seed: 99}
		b.SetBytes(int64(len(pages)))
		for b.Loop() {
			for i := 0; i < len(pages); i += memory.PageSize {
				l.digest(pages[i : i+memory.PageSize])
			}
		}
	})
	b.Run("xxh3-64 of a frame", func(b *testing.B) {
		b.SetBytes(int64(len(pages)))
		for b.Loop() {
			xxh3.Hash(pages)
		}
	})
}
