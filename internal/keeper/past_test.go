package keeper

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
)

func newPlaces(t *testing.T) Places {
	return Places{Journals: filepath.Join(t.TempDir(), "journal")}
}

func TestPastStopsAreRemembered(t *testing.T) {
	p := newPlaces(t)
	if past, err := p.past(); err != nil || len(past) > 0 {
		t.Errorf("before the first: %v, %v", past, err)
	}
	stop := handover.Past{
		Container: "web", Peer: "tls://b:7440", Load: handover.Load{Memory: 1 << 30, Copied: 7, Processes: 2, Mounts: 6},
		Source: 60 * time.Millisecond, Here: 80 * time.Millisecond,
	}
	if err := p.remember(&stop); err != nil {
		t.Fatal(err)
	}
	if past, err := p.past(); err != nil || !reflect.DeepEqual(past, []handover.Past{stop}) {
		t.Errorf("%+v, %v", past, err)
	}
}

// Moves of a whole host end at the same time; the file holds the newest, and stays one that can be read.
func TestPastStopsAreBounded(t *testing.T) {
	p := newPlaces(t)
	long := strings.Repeat("n", 255)
	var moves sync.WaitGroup
	for range 8 {
		moves.Go(func() {
			for range pastMost / 4 {
				if err := p.remember(&handover.Past{Container: long, Peer: "ssh://" + long, Source: time.Hour, Here: time.Hour}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	moves.Wait()
	if err := p.remember(&handover.Past{Container: "last"}); err != nil {
		t.Fatal(err)
	}
	past, err := p.past()
	if err != nil || len(past) != pastMost || past[pastMost-1].Container != "last" {
		t.Errorf("%d stops, %v", len(past), err)
	}
}

// What a crash or another release has left there costs the knowledge of the past, and no move.
func TestPastStopsThatCannotBeReadAreBegunAnew(t *testing.T) {
	for name, content := range map[string]string{
		"nothing":         "",
		"garbage":         "\x00\xff{",
		"cut off":         `{"version":1,"stops":[{"container":"web"`,
		"another version": `{"version":2,"stops":[{"container":"web","source":"60ms"}]}`,
		"other types":     `{"version":1,"stops":[{"source_ns":"long"}]}`,
		"too large":       `{"version":1,"stops":[]}` + strings.Repeat(" ", pastBytes),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlaces(t)
			if err := os.WriteFile(p.pastPath(), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if past, err := p.past(); err == nil || len(past) > 0 {
				t.Errorf("read as %+v", past)
			}
			if err := p.remember(&handover.Past{Container: "web"}); err != nil {
				t.Fatal(err)
			}
			if past, err := p.past(); err != nil || len(past) != 1 {
				t.Errorf("afterwards: %+v, %v", past, err)
			}
		})
	}
}
