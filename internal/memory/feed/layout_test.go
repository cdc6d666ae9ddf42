package feed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/xxh3"

	"github.com/livemigrate/migrate/internal/memory"
)

func run(page, pages, slot uint64) Run {
	return Run{Range: memory.Range{Start: page * pageSize, Pages: pages}, Slot: slot}
}

func TestLayoutComesBackAsItWas(t *testing.T) {
	for name, l := range map[string]*Layout{
		"empty":          {},
		"nothing to say": {Spaces: []Space{{Pid: 1, Runs: []Run{}}}},
		"of everything": {Spaces: []Space{
			{Pid: 1, Runs: []Run{run(16, 4, 1), run(20, 1, 0), run(21, 3, 5), run(1<<40, 1<<20, 900)}},
			{Pid: maxPid, Runs: []Run{run(16, 2, 6), run(18, 1, 1), run(19, 1, maxSlots-1), run(maxPages-1, 1, 0)}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := l.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeLayout(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(l, got); diff != "" {
				t.Error(diff)
			}
			path := filepath.Join(t.TempDir(), LayoutName)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := ReadLayout(f, int64(len(b))); err != nil {
				t.Error(err)
			}
			for i := range b {
				damaged := bytes.Clone(b)
				damaged[i] ^= 0x10
				if _, err := DecodeLayout(damaged); !errors.Is(err, ErrLayout) {
					t.Fatalf("byte %d is another: %v", i, err)
				}
				if _, err := DecodeLayout(b[:i]); !errors.Is(err, ErrLayout) {
					t.Fatalf("cut after %d bytes: %v", i, err)
				}
			}
		})
	}
}

func TestLayoutThatNoMemoryHasIsRefused(t *testing.T) {
	for name, l := range map[string]*Layout{
		"processes out of order": {Spaces: []Space{{Pid: 2}, {Pid: 1}}},
		"a process twice":        {Spaces: []Space{{Pid: 2}, {Pid: 2}}},
		"process 0":              {Spaces: []Space{{Pid: 0}}},
		"overlapping runs":       {Spaces: []Space{{Pid: 1, Runs: []Run{run(10, 2, 1), run(11, 1, 3)}}}},
		"runs out of order":      {Spaces: []Space{{Pid: 1, Runs: []Run{run(10, 2, 1), run(1, 1, 3)}}}},
		"a run of nothing":       {Spaces: []Space{{Pid: 1, Runs: []Run{run(10, 0, 1)}}}},
		"beyond all addresses":   {Spaces: []Space{{Pid: 1, Runs: []Run{run(maxPages-1, 2, 1)}}}},
		"more than any store":    {Spaces: []Space{{Pid: 1, Runs: []Run{run(10, 2, maxSlots-1)}}}},
		"half a page":            {Spaces: []Space{{Pid: 1, Runs: []Run{{Range: memory.Range{Start: 4095, Pages: 1}, Slot: 1}}}}},
	} {
		if _, err := l.Encode(); !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLayout: whatever is accepted is what would be written. The digest is made right, or nothing would get past it.
func FuzzLayout(f *testing.F) {
	l := &Layout{Spaces: []Space{{Pid: 1, Runs: []Run{run(16, 4, 1), run(20, 1, 0), run(300, 3, 5)}}, {Pid: 9}}}
	b, err := l.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-layoutDigest])
	f.Add(binary.AppendUvarint([]byte(layoutMagic), 1<<40))
	f.Fuzz(func(t *testing.T, body []byte) {
		digest := xxh3.Hash128(body).Bytes()
		whole := append(bytes.Clone(body), digest[:]...)
		l, err := DecodeLayout(whole)
		if err != nil {
			if !errors.Is(err, ErrLayout) {
				t.Fatal(err)
			}
			return
		}
		again, err := l.Encode()
		if err != nil || !bytes.Equal(again, whole) {
			t.Fatalf("%x becomes %x, %v", whole, again, err)
		}
	})
}
