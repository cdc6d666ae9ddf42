package filesync

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
)

// A file of gigabytes may take longer than the link lasts.
func TestLargeFileGoesOnWhereTheLinkBroke(t *testing.T) {
	const size = 24
	content := make([]byte, size<<20+12345)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	for name, c := range map[string]struct {
		between func(*pair)
		cuts    []int // after so many frames of a pass
		most    int64 // MiB that the last pass sends
	}{
		"once":                       {func(*pair) {}, []int{20}, size - 8},
		"twice":                      {func(*pair) {}, []int{12, 12}, size - 8},
		"at its begin":               {func(*pair) {}, []int{3}, size + 1},
		"a hole in it":               {func(p *pair) { must(t, truncateTo(p.at("large"), 10<<20, 16<<20)) }, []int{16}, 12},
		"damaged there":              {func(p *pair) { must(t, writeAt(p.dst+"/large", 3<<20, "damage")) }, []int{20}, size + 1},
		"changed in the sent part":   {func(p *pair) { must(t, writeAt(p.at("large"), 3<<20, "changed")) }, []int{20}, size + 1},
		"changed in the unsent part": {func(p *pair) { must(t, writeAt(p.at("large"), 23<<20, "changed")) }, []int{20}, size - 8},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.write("before", "content")
			p.write("large", string(content))
			p.write("later", "content")
			if name == "a hole in it" {
				c.between(p)
			}
			time.Sleep(2 * racyWindow)
			for _, frames := range c.cuts {
				p.open(SourceOptions{}, true)
				p.passUntil(frames)
				p.close()
				if name != "a hole in it" {
					c.between(p)
				}
				time.Sleep(2 * racyWindow)
			}
			p.a, p.b, _ = newPipe()
			p.open(SourceOptions{}, true)
			st := p.pass()
			p.equal()
			if st.Bytes > c.most<<20 {
				t.Errorf("the last pass has sent %d MiB, of %d", st.Bytes>>20, size)
			}
			p.close()
		})
	}
}

// What came of a file is found among its chunks, and what it is made of remembered, however large the file is.
func TestBeginningOfAFileOfManyChunks(t *testing.T) {
	const kept, whole = 90 << 10, 100 << 10 // 90 GiB of 100
	var sum summer
	sum.reset()
	var digest Digest
	for i := range whole {
		if i == kept {
			digest = sum.sum()
		}
		sum.add(Digest{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	known := beginning(sum.list, digest)
	if known == nil || len(known.chunks) != kept {
		t.Fatal("the peer's beginning is not found")
	}
	var all bases
	all.put("large", digest, known.chunks)
	if all.get("large", digest) == nil {
		t.Error("it is not remembered")
	}
}

// passUntil makes a pass whose link breaks.
func (p *pair) passUntil(frames int) {
	p.t.Helper()
	a, b, cut := newPipe()
	p.a, p.b = a, b
	var once sync.Once
	counted := &counting{Channel: a, after: frames, do: func() { once.Do(func() { close(cut) }) }}
	served := make(chan error, 1)
	go func() { _, err := p.target.Serve(p.t.Context(), b); served <- err }()
	if _, err := p.source.Pass(p.t.Context(), counted); !errors.Is(err, io.ErrClosedPipe) {
		p.t.Fatalf("source: %v", err)
	}
	if err := <-served; err == nil {
		p.t.Fatal("the peer did not notice")
	}
}

func writeAt(path string, offset int64, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), offset)
	return errors.Join(err, f.Close())
}

// truncateTo makes a hole.
func truncateTo(path string, from, to int64) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return errors.Join(os.Truncate(path, from), os.Truncate(path, to), appendTo(path, bytes.Clone(text[to:])))
}

func appendTo(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
