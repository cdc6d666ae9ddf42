package keeper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/runtime"
)

// A directory that another container writes to may not become two without a word.
func TestVolumeOfTwoContainersIsNotSplit(t *testing.T) {
	top := t.TempDir()
	for _, name := range []string{"data/db", "other", "data2"} {
		if err := os.MkdirAll(filepath.Join(top, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"data/file", "hosts"} {
		if err := os.WriteFile(filepath.Join(top, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("data", filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	const none = preflight.Severity("")
	for name, c := range map[string]struct {
		ours, theirs         string
		oursRead, theirsRead bool
		volumes              string
		want                 preflight.Severity
	}{
		"the same":                 {"data", "data", false, false, VolumesCopy, preflight.Blocker},
		"by a link":                {"data", "link", false, false, VolumesCopy, preflight.Blocker},
		"in ours":                  {"data", "data/db", false, false, VolumesCopy, preflight.Blocker},
		"a file in ours":           {"data", "data/file", false, false, VolumesCopy, preflight.Blocker},
		"around ours":              {"data/db", "data", false, false, VolumesCopy, preflight.Warning},
		"only they write":          {"data", "data", true, false, VolumesCopy, preflight.Blocker},
		"only we write":            {"data", "data", false, true, VolumesCopy, preflight.Warning},
		"both only read":           {"data", "data", true, true, VolumesCopy, preflight.Note},
		"another":                  {"data", "other", false, false, VolumesCopy, none},
		"one whose name is longer": {"data", "data2", false, false, VolumesCopy, none},
		"a single file":            {"hosts", "hosts", false, false, VolumesCopy, none},
		"it is shared":             {"data", "data", false, false, VolumesShared, none},
	} {
		t.Run(name, func(t *testing.T) {
			places := testPlaces(t)
			mount := func(source string, readOnly bool) specs.Mount {
				m := specs.Mount{Destination: "/data", Type: "bind", Source: filepath.Join(top, source), Options: []string{"rbind"}}
				if readOnly {
					m.Options = append(m.Options, "ro")
				}
				return m
			}
			writeState(t, places, func(s *runtime.State) {
				s.Plan.Rootfs = filepath.Join(top, "rootfs")
				s.Plan.Spec.Mounts = []specs.Mount{mount(c.ours, c.oursRead)}
			})
			ours := loadContainer(t, places)
			ours.order.Volumes = c.volumes
			ours.plan()
			f := ours.judgeOther("two", mount(c.theirs, c.theirsRead))
			switch {
			case c.want == none && len(f) > 0:
				t.Errorf("found %+v", f)
			case c.want != none && (len(f) != 1 || f[0].Severity != c.want || !strings.Contains(f[0].Text, "two")):
				t.Errorf("found %+v, want a %s", f, c.want)
			}
		})
	}
}
