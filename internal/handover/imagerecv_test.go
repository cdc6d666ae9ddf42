package handover

import (
	"errors"
	"fmt"
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
			if err := f.add(s[0], s[1]); err != nil {
				t.Fatal(err)
			}
		}
		missing, err := f.missing(10)
		if errors.Is(err, wire.ErrMalformed) != c.refused || missing != c.missing {
			t.Errorf("%s: %d bytes missing, %v", name, missing, err)
		}
	}
}

// More files than one message holds: a container of thousands of processes moves as well.
func TestLargeImageSetIsListedWhole(t *testing.T) {
	source, peer := newSessions(newCable(-1))
	files := make([]*wire.ImageFile, 2*wire.MaxListed+1)
	for i := range files {
		files[i] = &wire.ImageFile{Name: fmt.Sprintf("core-%d.img", i)}
	}
	p := &Push{talk: &talk{control: source.Control()}}
	if err := p.list(t.Context(), files, 7, []byte("stdio")); err != nil {
		t.Fatal(err)
	}
	var listed []*wire.ImageFile
	for more := true; more; {
		frame, err := peer.Control().Recv(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		m, err := wire.Decode(frame)
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, m.GetImages().GetFiles()...)
		if frames := m.GetImages().GetPageFrames(); m.GetImages().GetMore() == (frames == 7) {
			t.Errorf("%d page frames: they are to be in the last message alone", frames)
		}
		if more = m.GetImages().GetMore(); more == (string(m.GetImages().GetStdio()) == "stdio") {
			t.Error("stdio is not in the last message alone")
		}
	}
	if len(listed) != len(files) || listed[len(files)-1].GetName() != files[len(files)-1].GetName() {
		t.Errorf("%d of %d files were listed", len(listed), len(files))
	}
}
