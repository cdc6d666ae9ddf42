package keeper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
)

var born = time.Date(2026, 5, 4, 3, 2, 1, 987654321, time.UTC)

// Files of a container that is there are in the way of another one, and what it has left itself is not. What may be the only one of
// its kind is kept.
func TestBundleOfAnotherIsNotTakenOver(t *testing.T) {
	testutil.Root(t)
	file := func(t *testing.T, p *place, name string) {
		t.Helper()
		path := filepath.Join(p.bundle, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mark := func(s stay, id string, created time.Time) func(*testing.T, *place) {
		return func(t *testing.T, p *place) {
			t.Helper()
			file(t, p, "rootfs/file")
			if err := (&tenant{Container: id, Created: created, Stay: s}).write(p.bundle); err != nil {
				t.Fatal(err)
			}
		}
	}
	lodger := func(edit func(*runtime.Plan, string)) func(*testing.T, *place) {
		return func(t *testing.T, p *place) {
			t.Helper()
			mark(movedOn, "web", born)(t, p)
			writeState(t, p.host.order.Places, func(s *runtime.State) {
				s.Plan.Spec.Linux.CgroupsPath = "/other"
				edit(s.Plan, p.bundle)
			})
			if err := os.Rename(filepath.Join(p.host.order.Root, "web"), filepath.Join(p.host.order.Root, "other")); err != nil {
				t.Fatal(err)
			}
			rename(t, filepath.Join(p.host.order.Root, "other", "state.json"))
		}
	}
	for name, c := range map[string]struct {
		there func(*testing.T, *place)
		says  string // "" where it may come
		kept  string // what is kept of the bundle; "" with says: it may not come
	}{
		"nothing":                                {func(*testing.T, *place) {}, "", ""},
		"empty directories":                      {func(_ *testing.T, p *place) { _ = os.MkdirAll(filepath.Join(p.bundle, "rootfs"), 0o755) }, "", ""},
		"files of a user":                        {func(t *testing.T, p *place) { file(t, p, "volumes/1/db") }, "no move has brought", "volumes/1/db"},
		"a mark cut short":                       {func(t *testing.T, p *place) { file(t, p, runtime.TenantFile) }, "no move has brought", runtime.TenantFile},
		"it lived here":                          {mark(livesHere, "web", born), "", ""},
		"it has moved on":                        {mark(movedOn, "web", born), "", ""},
		"it has failed to come":                  {mark(neverRan, "web", born), "", ""},
		"another of its name has moved on":       {mark(movedOn, "web", born.Add(1)), "", ""},
		"another of its name has failed to come": {mark(neverRan, "web", born.Add(1)), "", ""},
		"another of its name ended here":         {mark(livesHere, "web", born.Add(1)), "", ""},
		"one with volumes ended here": {func(t *testing.T, p *place) {
			mark(livesHere, "db", born)(t, p)
			file(t, p, "volumes/1/db")
		}, "another container db", "volumes/1/db"},
		"bundle of a container": {lodger(func(plan *runtime.Plan, bundle string) { plan.Bundle = bundle }), "container other uses", ""},
		"root of a container":   {lodger(func(plan *runtime.Plan, bundle string) { plan.Rootfs = bundle + "/rootfs" }), "container other uses", ""},
		"volume of a container": {lodger(func(plan *runtime.Plan, bundle string) {
			plan.Spec.Mounts = []specs.Mount{{Destination: "/data", Type: "bind", Source: bundle + "/volumes/1"}}
		}), "container other uses", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, func(p *place) { p.identity.Created = born })
			c.there(t, p)
			found, err := p.vacancy()
			if err != nil {
				t.Fatal(err)
			}
			if c.says == "" && len(found) > 0 || c.says != "" && (found.Blocked() != (c.kept == "") || !strings.Contains(found[0].Text, c.says)) {
				t.Fatalf("found %+v, want %q", found, c.says)
			}
			if c.kept != "" {
				if err := p.makeBundle(); err != nil {
					t.Fatal(err)
				}
				kept, _ := filepath.Glob(filepath.Join(p.bundle+".*", c.kept))
				if len(kept) != 1 || !strings.Contains(found[0].Text, filepath.Join(p.bundle+".")) {
					t.Errorf("kept are %v, said was %q", kept, found[0].Text)
				}
				if held, err := holdsFiles(filepath.Join(p.bundle, volumesDir)); held || err != nil {
					t.Errorf("the volumes are there yet, %v", err)
				}
			}
			for _, f := range found {
				if f.Code != string(preflight.BundleTaken) || f.Cure == "" {
					t.Errorf("found %+v", f)
				}
			}
		})
	}
}

// rename makes a written state that of the directory that it is in.
func rename(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.Replace(string(content), `"web"`, `"other"`, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A move that comes to nothing leaves the word on a bundle as it was; one that ended well says that the files may be the only ones.
func TestBundleSaysWhoseItIs(t *testing.T) {
	testutil.Root(t)
	for name, c := range map[string]struct {
		before  *tenant
		discard bool
		want    stay
	}{
		"it came":                   {nil, false, livesHere},
		"it did not come":           {nil, true, neverRan},
		"it did not come again":     {&tenant{Container: "web", Stay: neverRan}, true, neverRan},
		"it did not come back":      {&tenant{Container: "web", Created: born, Stay: movedOn}, true, movedOn},
		"it came back":              {&tenant{Container: "web", Created: born, Stay: movedOn}, false, livesHere},
		"its twin's fate is open":   {&tenant{Container: "web", Created: born, Stay: livesHere}, true, livesHere},
		"it did not come for a new": {&tenant{Container: "web", Created: born.Add(1), Stay: movedOn}, true, movedOn},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, func(p *place) { p.identity.Created = born })
			if c.before != nil {
				if err := os.MkdirAll(p.bundle, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := c.before.write(p.bundle); err != nil {
					t.Fatal(err)
				}
			}
			if found, err := p.vacancy(); err != nil || len(found) > 0 {
				t.Fatal(found, err)
			}
			if err := p.makeBundle(); err != nil {
				t.Fatal(err)
			}
			if c.discard {
				var err error
				if p.lock, err = p.host.order.lock("web"); err != nil {
					t.Fatal(err)
				}
				if err := p.Discard(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			got, err := readTenant(p.bundle)
			if err != nil || !got.same("web", born) || got.Stay != c.want {
				t.Errorf("the bundle says %+v, %v; want %s", got, err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(p.bundle, "*.new")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A disk that a move has filled is free again, also when an earlier move had begun to fill it; what somebody lived in stays.
func TestFullDiskIsFreedAtTheSecondAttempt(t *testing.T) {
	testutil.Root(t)
	for s, want := range map[stay]bool{neverRan: true, movedOn: false, livesHere: false} {
		p := newPlace(t, func(p *place) { p.identity.Created = born })
		if err := os.MkdirAll(p.treePath(0), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.treePath(0), "file"), make([]byte, 64<<10), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := (&tenant{Container: "web", Created: born, Stay: s}).write(p.bundle); err != nil {
			t.Fatal(err)
		}
		p.hello.Trees[0].Bytes = 80 << 10
		if found, err := p.vacancy(); err != nil || len(found) > 0 {
			t.Fatal(found, err)
		}
		if a, err := p.arrival(); err != nil || a.Files != 16<<10 {
			t.Errorf("%s: %+v are to come, %v", s, a, err)
		}
		if err := p.makeBundle(); err != nil {
			t.Fatal(err)
		}
		var err error
		if p.lock, err = p.host.order.lock("web"); err != nil {
			t.Fatal(err)
		}
		p.full = true
		if err := p.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(p.bundle); os.IsNotExist(err) != want {
			t.Errorf("%s: the bundle is gone: %v", s, !want)
		}
	}
}

// The source's own bundle is one that its container comes back to.
func TestSourceMarksItsBundle(t *testing.T) {
	testutil.Root(t)
	for name, c := range map[string]struct {
		bundle, rootfs string
		marked         bool
	}{
		"where a move would put it":  {"web", "rootfs", true},
		"elsewhere":                  {"nginx", "rootfs", false},
		"a root that is the bundle":  {"web", "", false},
		"a root in another place":    {"web", "../images/1", true},
		"a bundle that is not there": {"gone/web", "rootfs", false},
	} {
		t.Run(name, func(t *testing.T) {
			places := testPlaces(t)
			bundle := filepath.Join(places.Bundles, c.bundle)
			if name != "a bundle that is not there" {
				if err := os.MkdirAll(bundle, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			writeState(t, places, func(s *runtime.State) {
				s.Created, s.Plan.Bundle, s.Plan.Rootfs = born, bundle, filepath.Join(bundle, c.rootfs)
			})
			con := loadContainer(t, places)
			for _, s := range []stay{livesHere, movedOn} {
				con.settle(s)
				got, err := readTenant(bundle)
				if (err == nil) != c.marked || err == nil && (!got.same("web", born) || got.Stay != s) {
					t.Errorf("the bundle says %+v, %v", got, err)
				}
			}
		})
	}
}

func loadContainer(t *testing.T, places Places) *container {
	t.Helper()
	c, err := remains(&Order{Places: places, Container: "web"}, "", newPlace(t, func(*place) {}).host.log)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
