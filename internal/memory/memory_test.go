package memory_test

import (
	"testing"

	"github.com/livemigrate/migrate/internal/memory"
)

func TestRangeAtTheTopOfTheAddressSpace(t *testing.T) {
	r := memory.Range{Start: 0x7ffffffde000, Pages: 33}
	if r.End() != 0x7ffffffff000 || r.Bytes() != 33*4096 {
		t.Errorf("%d bytes until %#x", r.Bytes(), r.End())
	}
}
