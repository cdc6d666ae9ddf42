package keeper

import (
	"bytes"
	"testing"

	"github.com/livemigrate/migrate/internal/memory/pages"
)

func TestCameTellsSlotsOfThisRound(t *testing.T) {
	var c came
	if got := c.bits(0, 64); len(got) != 0 {
		t.Errorf("of none: %v", got)
	}
	c.add(pages.Slots{First: 60, Pages: 10})
	c.add(pages.Slots{First: 1, Pages: 1})
	want := make([]byte, 16)
	want[0], want[7], want[8] = 2, 0xf0, 0x3f
	if got := c.bits(0, 64); !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := c.bits(0, 8); !bytes.Equal(got, want[:8]) {
		t.Errorf("the first of them: %v", got)
	}
	if got := c.bits(64, 8); !bytes.Equal(got, want[8:]) {
		t.Errorf("the rest: %v", got)
	}
	c.begin()
	if got := c.bits(0, 64); !bytes.Equal(got, make([]byte, 16)) {
		t.Errorf("in the next round: %v", got)
	}
}
