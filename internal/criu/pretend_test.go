package criu

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// A flag that were set in the wrong place, or for everybody, would make silent losses of pre-dumps.
func TestOnlyTheKnownCacheIsAltered(t *testing.T) {
	good := func() []byte {
		kdat := make([]byte, 400)
		binary.LittleEndian.PutUint32(kdat, kdatMagic)
		return kdat
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut":           func(k []byte) []byte { return k[:kdatTrack] },
		"empty":         func([]byte) []byte { return nil },
		"huge":          func(k []byte) []byte { return append(k, make([]byte, 1<<17)...) },
		"another magic": func(k []byte) []byte { k[0]++; return k },
		"another byte":  func(k []byte) []byte { k[kdatTrack] = 9; return k },
	} {
		if err := pretend(change(good())); !errors.Is(err, ErrNoPretence) {
			t.Errorf("%s: %v", name, err)
		}
	}
	kdat, want := good(), good()
	want[kdatTrack] = 1
	if err := pretend(kdat); err != nil || string(kdat) != string(want) {
		t.Errorf("%x, %v", kdat, err)
	}
	for version, known := range map[string]bool{
		"3.14": false, "3.15": true, "3.19.1": true, "4.1.1": true, "4.2.1": true, "4.3": true, "4.4": false, "5.0": false, "x": false,
	} {
		if knownKdat(version) != known {
			t.Errorf("version %s: %v", version, !known)
		}
	}
}

func TestOnlyOurChildBelievesThatMemoryIsTracked(t *testing.T) {
	testutil.Root(t)
	path, err := Locate("")
	testutil.Need(t, err == nil, "criu")
	ask := func(start func(context.Context, *StartOptions) (*Client, error)) (Features, bool) {
		t.Helper()
		c, err := start(t.Context(), &StartOptions{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		features, err := c.FeatureCheck(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return features, c.Pretends()
	}
	before, _ := ask(Start)
	tracked, pretends := ask(StartTracked)
	if !tracked.MemTrack || pretends == before.MemTrack {
		t.Errorf("it says %v and pretends: %v; without it says %v", tracked, pretends, before)
	}
	if after, _ := ask(Start); after != before {
		t.Errorf("another says %v, said %v", after, before)
	}
	if kdat, err := os.ReadFile(kdatPath); err == nil && len(kdat) > kdatTrack && kdat[kdatTrack] == 1 && !before.MemTrack {
		t.Error("the host's own cache was altered")
	}
	none := func(ctx context.Context) (*Client, error) {
		return StartTracked(ctx, &StartOptions{Path: "/bin/false"})
	}
	if c, err := none(t.Context()); err == nil {
		c.Close()
		t.Error("a program that is not criu is started")
	}
}
