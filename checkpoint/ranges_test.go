package checkpoint

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/livemigrate/migrate/internal/memory"
)

func pagesAt(list ...uint64) (ranges []memory.Range) {
	for i := 0; i < len(list); i += 2 {
		ranges = append(ranges, memory.Range{Start: list[i] * memory.PageSize, Pages: list[i+1]})
	}
	return ranges
}

func TestUntrackedPagesAreTakenOut(t *testing.T) {
	for _, c := range []struct{ all, out, want []memory.Range }{
		{pagesAt(1, 9), nil, pagesAt(1, 9)},
		{pagesAt(1, 9), pagesAt(1, 9), nil},
		{pagesAt(1, 9), pagesAt(1, 2, 5, 1), pagesAt(3, 2, 6, 4)},
		{pagesAt(1, 9, 20, 4, 30, 1), pagesAt(8, 2, 20, 1, 23, 1), pagesAt(1, 7, 21, 2, 30, 1)},
		{pagesAt(1, 2, 3, 2), pagesAt(2, 2), pagesAt(1, 1, 4, 1)}, // one that lies in two
	} {
		if got := without(c.all, c.out); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v without %v is %v, not %v", c.all, c.out, got, c.want)
		}
	}
}

func TestPagesAreSpreadOverWhatIsGone(t *testing.T) {
	page := func(numbers ...byte) (all []byte) {
		for _, n := range numbers {
			all = append(all, bytes.Repeat([]byte{n}, memory.PageSize)...)
		}
		return all
	}
	for _, c := range []struct {
		read []byte
		got  []memory.Range
		want []byte
	}{
		{page(9, 9, 9), nil, page(0, 0, 0)},
		{page(1, 2, 9), pagesAt(7, 2), page(1, 2, 0)},
		{page(1, 2, 9), pagesAt(8, 2), page(0, 1, 2)},
		{page(1, 2, 9, 9), pagesAt(7, 1, 10, 1), page(1, 0, 0, 2)},
		{page(1, 2, 9, 9), pagesAt(8, 1, 10, 1), page(0, 1, 0, 2)},
	} {
		if spread(c.read, 7*memory.PageSize, c.got); !bytes.Equal(c.read, c.want) {
			t.Errorf("%v: wrong", c.got)
		}
	}
}
