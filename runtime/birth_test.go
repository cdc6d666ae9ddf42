package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestStateCutAtAnyByteNamesItsContainer(t *testing.T) {
	r := testRuntime(t)
	c := testContainer(t, r, testPlan(t, forever), false)
	path := filepath.Join(c.StateDir(), stateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := bytes.TrimRight(data, "\n")
	for n := range whole {
		if _, err := parseState(whole[:n], c.ID()); err == nil {
			t.Fatalf("the first %d of %d bytes are a state", n, len(whole))
		}
	}
	for n := 0; n < len(whole); n += 97 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := r.Load(c.ID())
		_, corrupt := errors.AsType[*CorruptError](err)
		if !corrupt || !strings.Contains(err.Error(), c.ID()) || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestForcedRemovalKillsAContainerOfCorruptState(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"cut":     func(path string) error { return os.Truncate(path, 700) },
		"garbage": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte{0xff, 0}, 4096), 0o600) },
		"strange": func(path string) error {
			return os.WriteFile(path, []byte(`{"version":1,"id":"other","config":{"spec":{"linux":{}}}}`), 0o600)
		},
		"gone":        os.Remove,
		"a directory": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			r, ctx := testRuntime(t), context.Background()
			told := filepath.Join(t.TempDir(), "told")
			plan := testPlan(t, forever, func(s *specs.Spec) {
				s.Annotations = map[string]string{"owner": "me"}
				s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >" + told}}}}
			})
			c := testContainer(t, r, plan, true)
			if name == "cut" { // and frozen
				if err := c.Pause(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := spoil(filepath.Join(c.StateDir(), stateFile)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Load(c.ID()); err == nil {
				t.Fatal("the state can still be read")
			}
			if err := r.Remove(ctx, c.ID(), false); !errors.Is(err, ErrRunning) {
				t.Fatalf("removed without force: %v", err)
			}
			if err := r.Remove(ctx, c.ID(), true); err != nil {
				t.Fatal(err)
			}
			wantNothingLeft(t, c)
			var state specs.State
			text, err := os.ReadFile(told)
			if err == nil {
				err = json.Unmarshal(text, &state)
			}
			if err != nil || state.ID != c.ID() || state.Annotations["owner"] != "me" {
				t.Errorf("the poststop hook was told %s, error %v", text, err)
			}
		})
	}
}

// wantNothingLeft looks for the container's process, cgroups and state directory.
func wantNothingLeft(t *testing.T, c *Container) {
	t.Helper()
	if c.alive() {
		t.Error("init lives")
	}
	for _, dir := range c.State().CgroupPaths {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("cgroup %s is left: %v", dir, err)
		}
	}
	if _, err := os.Stat(c.StateDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state directory is left: %v", err)
	}
}

func TestForcedRemovalFindsTheProcessesWithoutAnyRecord(t *testing.T) {
	for name, spoil := range map[string]func(birth string) error{
		"gone": os.Remove,
		"cut":  func(birth string) error { return os.Truncate(birth, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			r, ctx := testRuntime(t), context.Background()
			log := new(bytes.Buffer)
			r.log = slog.New(slog.NewTextHandler(log, nil))
			c := testContainer(t, r, testPlan(t, forever), true)
			err := errors.Join(os.Truncate(filepath.Join(c.StateDir(), stateFile), 0), spoil(filepath.Join(c.StateDir(), birthFile)))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Remove(ctx, c.ID(), false); !errors.Is(err, ErrRunning) {
				t.Fatalf("removed without force: %v", err)
			}
			if err := r.Remove(ctx, c.ID(), true); err != nil {
				t.Fatal(err)
			}
			wantNothingLeft(t, c)
			if !strings.Contains(log.String(), "level=WARN") {
				t.Errorf("no warning: %s", log)
			}
		})
	}
}

func TestForcedRemovalOfACorruptContainerRemovesItsResctrlGroup(t *testing.T) {
	r := testRuntime(t)
	c := testContainer(t, r, testPlan(t, forever), true)
	root := fakeResctrl(t)
	class, monitor := filepath.Join(root, "own"), filepath.Join(root, "shared", "mon_groups", "box")
	state := c.State()
	state.IntelRdtPath, state.IntelRdtOwned = class, true
	if got := birth(&state); got.IntelRdtPath != class || !got.IntelRdtOwned {
		t.Errorf("born with group %q, owned %t", got.IntelRdtPath, got.IntelRdtOwned)
	}
	state.IntelRdtPath, state.IntelRdtMonPath, state.IntelRdtOwned = filepath.Join(root, "shared"), monitor, false
	if err := os.MkdirAll(monitor, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := firstState(c.StateDir(), &state); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(c.StateDir(), stateFile), 0); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(context.Background(), c.ID(), true); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, c)
	if _, err := os.Stat(monitor); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the monitoring group is left: %v", err)
	}
}

func TestContainerWithoutAnyRecordLosesItsDirectoryAtLeast(t *testing.T) {
	r, id := testRuntime(t), testID(t)
	for _, birth := range []string{"", "{", `{"version":1,"id":"x"}`} {
		dir, err := r.reserve(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{stateFile, birthFile} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(birth), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Remove(context.Background(), id, true); err != nil {
			t.Errorf("%q: %v", birth, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: the directory is left: %v", birth, err)
		}
	}
}

// FuzzState: whatever stands in state.json, it is a state that every question can be asked of, or an error.
func FuzzState(f *testing.F) {
	for _, s := range []*State{exampleState(), birth(exampleState())} {
		data, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte(`{"version":1,"id":"web","config":{"spec":{"linux":{"namespaces":[{"type":"user"}],"uidMappings":[{}]},"process":{"args":["x"],"cwd":"/"}}}}`))
	f.Add([]byte(`{"version":1,"id":"web","config":{"spec":{"linux":{},"process":{},"mounts":[{"source":"cgroup"}]}},"network":{},"cgroup_paths":{"":"/"}}`))
	r, err := Open(&Options{Root: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := parseState(data, "web")
		if err != nil {
			return
		}
		c, err := r.open(r.dir("web"), "web", state)
		if err != nil {
			return
		}
		_, _ = c.State(), c.Spec()
		_, _ = c.ociState(specs.StateRunning), c.sharesNothing()
		_ = state.Namespace(specs.NetworkNamespace)
		if text := jsonOf(t, birth(state)); len(text) == 0 {
			t.Error("no birth")
		}
	})
}
