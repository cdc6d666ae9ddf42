package draft_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/draft"
)

const page = memory.PageSize

func open(t *testing.T) *draft.Draft {
	t.Helper()
	d, err := draft.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func runs(list ...uint64) (ranges []memory.Range) {
	for i := 0; i < len(list); i += 2 {
		ranges = append(ranges, memory.Range{Start: list[i] * page, Pages: list[i+1]})
	}
	return ranges
}

// A model of two address spaces is copied, changed and forgotten at random, and says what must be read.
func TestPagesAreWhatWasCopiedLast(t *testing.T) {
	const size = 3000 // pages, from the middle of a chunk on
	const first = 0x7f0000000 + 100
	d := open(t)
	random := rand.New(rand.NewPCG(1, 2))
	var model [2]map[uint64]byte
	for i := range model {
		model[i] = map[uint64]byte{}
	}
	for range 2000 {
		space := random.Uint64N(2)
		start, n := random.Uint64N(size), 1+random.Uint64N(40)
		at := runs(first+start, n)
		switch random.IntN(8) {
		case 0:
			d.Gone(space, at)
			for i := range n {
				delete(model[space], start+i)
			}
		case 1:
			if err := d.Keep(space, runs(first, start, first+start+n, size)); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				delete(model[space], start+i)
			}
		default:
			data := make([]byte, n*page)
			for i := range n {
				fill := byte(random.Uint32())
				copy(data[i*page:], bytes.Repeat([]byte{fill}, page))
				model[space][start+i] = fill
			}
			if err := d.Put(space, at, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	for space := range uint64(2) {
		reader := d.Reader(space)
		for i := range uint64(size + 40) {
			want, known := model[space][i]
			missing := d.Missing(space, runs(first+i, 1))
			if known != (len(missing) == 0) {
				t.Fatalf("space %d, page %d: known %v, missing %v", space, i, known, missing)
			}
			buf := make([]byte, page)
			_, err := reader.ReadAt(buf, int64((first+i)*page))
			switch {
			case !known && !errors.Is(err, draft.ErrMissing):
				t.Fatalf("space %d, page %d: %v", space, i, err)
			case known && (err != nil || !bytes.Equal(buf, bytes.Repeat([]byte{want}, page))):
				t.Fatalf("space %d, page %d: %v, %d is not %d", space, i, err, buf[0], want)
			}
		}
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMissingPagesAreNamedOverChunks(t *testing.T) {
	d := open(t)
	if err := d.Put(1, runs(510, 4, 600, 1), make([]byte, 5*page)); err != nil {
		t.Fatal(err)
	}
	if got, want := d.Missing(1, runs(400, 1000)), runs(400, 110, 514, 86, 601, 799); !reflect.DeepEqual(got, want) {
		t.Errorf("missing %v, not %v", got, want)
	}
	if err := d.KeepSpaces(func(space uint64) bool { return space != 1 }); err != nil {
		t.Fatal(err)
	}
	if got, want := d.Missing(1, runs(500, 20)), runs(500, 20); !reflect.DeepEqual(got, want) {
		t.Errorf("missing %v, not %v", got, want)
	}
}

func TestWhatWasReadIsFreed(t *testing.T) {
	d := open(t)
	data := bytes.Repeat([]byte{7}, 1024*page)
	if err := d.Put(1, runs(0, 1024), data); err != nil {
		t.Fatal(err)
	}
	reader := d.Reader(1)
	buf := make([]byte, 600*page)
	if n, err := reader.ReadAt(buf, 0); err != nil || n != len(buf) || !bytes.Equal(buf, data[:n]) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if got, want := d.Missing(1, runs(0, 1024)), runs(0, 512); !reflect.DeepEqual(got, want) {
		t.Errorf("after a read %v are freed, not %v", got, want)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := d.Missing(1, runs(0, 1024)), runs(0, 1024); !reflect.DeepEqual(got, want) {
		t.Errorf("after all %v are freed, not %v", got, want)
	}
}
