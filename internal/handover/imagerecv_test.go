package handover

import (
	"errors"
	"testing"

	"github.com/livemigrate/migrate/internal/wire"
)

// A hole in an image would be zeros in the container's memory: only a file whose every byte came is complete.
func TestImageIsCompleteWithoutHolesOnly(t *testing.T) {
	type span [2]uint64
	for name, c := range map[string]struct {
		spans   []span
		missing uint64
		refused bool
	}{
		"in order":            {[]span{{0, 4}, {4, 8}, {8, 10}}, 0, false},
		"overtaking":          {[]span{{8, 10}, {4, 8}, {0, 4}}, 0, false},
		"not all yet":         {[]span{{0, 4}, {8, 10}}, 6, false},
		"the same twice":      {[]span{{0, 4}, {0, 4}, {8, 10}}, 0, true},
		"overlap":             {[]span{{0, 6}, {4, 10}}, 0, true},
		"overlap of two more": {[]span{{2, 8}, {4, 8}, {0, 2}}, 0, true},
		"beyond the end":      {[]span{{0, 4}, {8, 12}}, 0, true},
		"too long":            {[]span{{0, 4}, {4, 12}}, 0, true},
	} {
		f := &imageFile{islands: map[uint64]uint64{}}
		for _, s := range c.spans {
			f.add(s[0], s[1])
		}
		missing, err := f.missing(10)
		if errors.Is(err, wire.ErrMalformed) != c.refused || missing != c.missing {
			t.Errorf("%s: %d bytes missing, %v", name, missing, err)
		}
	}
}
