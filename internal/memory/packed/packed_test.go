package packed

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/sys/hole"
)

// records is memory as a store of JSON has it: alike in form, different in each number.
func records(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // not a secret
	b := make([]byte, 0, size+512)
	for id := 0; len(b) < size; id++ {
		b = fmt.Appendf(b, `{"id":%d,"user":"u%08x","session":"%016x","visits":%d,"last":"2026-%02d-%02dT%02d:%02d:%02dZ","tags":["a%d","b%d"],"price":%d.%02d}`,
			id, r.Uint32(), r.Uint64(), r.IntN(1000), 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(50), r.IntN(50), r.IntN(10000), r.IntN(100))
		b = append(b, make([]byte, (16-len(b)%16)%16+16)...)
	}
	return b[:size]
}

func noise(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// packing writes content to a file, packs that, and returns what came of it.
func packing(t testing.TB, content []byte, chunk int64) (*Index, *os.File, *os.File) {
	t.Helper()
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	from, to := open("plain"), open("packed")
	if _, err := from.Write(content); err != nil {
		t.Fatal(err)
	}
	x, err := pack(t.Context(), to, from, int64(len(content)), chunk)
	if err != nil {
		t.Fatal(err)
	}
	return x, to, from
}

func opened(t testing.TB, x *Index, from *os.File) *File {
	t.Helper()
	f, err := NewFile(from, x)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestPagesComeBackAsTheyWere(t *testing.T) {
	const chunk = 16 << 10
	for name, content := range map[string][]byte{
		"records": records(3*chunk + 4096), "noise": noise(2 * chunk), "one page": noise(4096), "zeros": make([]byte, 40*chunk),
	} {
		t.Run(name, func(t *testing.T) {
			x, to, _ := packing(t, content, chunk)
			f := opened(t, x, to)
			info, err := to.Stat()
			if err != nil || info.Size() != x.Stored() || f.Chunks() != (len(content)+chunk-1)/chunk {
				t.Fatalf("%d bytes, %d chunks, %v", x.Stored(), f.Chunks(), err)
			}
			var got []byte
			for i := range f.Chunks() {
				plain, err := f.Decode(i, make([]byte, chunk))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, plain...)
			}
			if !bytes.Equal(got, content) {
				t.Error("the chunks are not what was packed")
			}
			across := make([]byte, len(content)-100)
			if n, err := f.ReadAt(across, 50); err != nil || n != len(across) || !bytes.Equal(across, content[50:len(content)-50]) {
				t.Errorf("%d bytes across chunks, %v", n, err)
			}
			if n, err := f.ReadAt(make([]byte, 100), int64(len(content))-10); n != 10 || err == nil {
				t.Errorf("%d bytes over the end, %v", n, err)
			}
		})
	}
}

func TestRoomIsGivenBackWhilePacking(t *testing.T) {
	_, _, from := packing(t, noise(3*giveBack), Chunk)
	if n, err := hole.Allocated(from); err != nil || n > giveBack {
		t.Errorf("%d bytes of what was packed are left, %v", n, err)
	}
}

func TestDamageIsRefused(t *testing.T) {
	const chunk = 16 << 10
	content := records(4 * chunk)
	for name, damage := range map[string]func(x *Index, f *os.File) error{
		"a byte altered": func(x *Index, f *os.File) error {
			b := make([]byte, 1)
			_, err := f.ReadAt(b, x.Frames[0]+x.Frames[1]/2)
			b[0] ^= 4
			_, err2 := f.WriteAt(b, x.Frames[0]+x.Frames[1]/2)
			return errors.Join(err, err2)
		},
		"the file cut":     func(x *Index, f *os.File) error { return f.Truncate(x.Frames[0] + 3) },
		"another digest":   func(x *Index, _ *os.File) error { x.Sums[1][3]++; return nil },
		"frames exchanged": func(x *Index, _ *os.File) error { x.Frames[1], x.Frames[0] = x.Frames[0]-1, x.Frames[1]+1; return nil },
		"another chunk size": func(x *Index, _ *os.File) error {
			x.Size -= 4096
			x.Frames = x.Frames[:4]
			x.Chunk = chunk - 1024
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			x, to, _ := packing(t, content, chunk)
			if err := damage(x, to); err != nil {
				t.Fatal(err)
			}
			f, err := NewFile(to, x)
			if err == nil {
				defer f.Close()
				_, err = f.ReadAt(make([]byte, len(content)), 0)
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("it is taken for whole: %v", err)
			}
		})
	}
}

// Whoever makes a frame knows its digest: then the decoder is all that stands between it and memory.
func FuzzFrame(f *testing.F) {
	const chunk = 8 << 10
	encoder, err := newEncoder(chunk)
	if err != nil {
		f.Fatal(err)
	}
	for _, content := range [][]byte{records(chunk), noise(chunk), make([]byte, chunk), records(chunk / 2), make([]byte, 3*chunk)} {
		f.Add(encoder.EncodeAll(content, nil))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		x := &Index{Size: chunk, Chunk: chunk, Frames: []int64{int64(len(frame))}, Sums: [][16]byte{xxh3.Hash128(frame).Bytes()}}
		file, err := NewFile(bytes.NewReader(frame), x)
		if err != nil {
			return
		}
		defer file.Close()
		room := make([]byte, 2*chunk)
		plain, err := file.Decode(0, room[:chunk:chunk])
		if err == nil && len(plain) != chunk || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes, %v", len(plain), err)
		}
		if !bytes.Equal(room[chunk:], make([]byte, chunk)) {
			t.Error("bytes behind the chunk were written")
		}
	})
}

// FuzzIndex: an index is of another host's making. One that is taken can be read, and what is read is not what it makes up.
func FuzzIndex(f *testing.F) {
	const chunk = 8 << 10
	encoder, err := newEncoder(chunk)
	if err != nil {
		f.Fatal(err)
	}
	one := encoder.EncodeAll(make([]byte, chunk), nil)
	f.Add(int64(2*chunk), int64(chunk), []byte{byte(len(one)), 0, byte(len(one)), 0}, append(bytes.Clone(one), one...))
	f.Add(int64(1), int64(1)<<62, []byte{1, 0}, []byte("x"))
	f.Add(int64(math.MaxInt64), int64(1), []byte{0, 0}, []byte(nil))
	f.Fuzz(func(t *testing.T, size, chunk int64, lengths, stored []byte) {
		x := &Index{Size: size, Chunk: chunk}
		at := 0
		for ; len(lengths) > 1; lengths = lengths[2:] {
			length := int(lengths[0]) | int(int8(lengths[1]))<<8
			frame := stored[min(at, len(stored)):min(max(at+length, at), len(stored))]
			x.Frames, x.Sums = append(x.Frames, int64(length)), append(x.Sums, xxh3.Hash128(frame).Bytes())
			at += len(frame)
		}
		file, err := NewFile(bytes.NewReader(stored), x)
		if err != nil {
			return
		}
		defer file.Close()
		if size > 1<<20 { // that it may be: memory is what the reader gives
			return
		}
		plain := make([]byte, size)
		if n, err := file.ReadAt(plain, 0); err == nil && n != len(plain) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
	})
}
