package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func exampleState() *State {
	return &State{
		Version: stateVersion, ID: "web", InitProcessPid: 7, InitProcessStartTime: 8, Created: time.Now().UTC(),
		Plan:           &Plan{Spec: ExampleSpec(), Bundle: "/b", Rootfs: "/b/rootfs"},
		CgroupPaths:    map[string]string{"": "/sys/fs/cgroup/web"},
		NamespacePaths: namespacePaths(7), ExternalDescriptors: []string{"/dev/null", "pipe:[1]", "pipe:[2]"},
		Network: &Network{Bridge: "br0", Addresses: []string{"10.0.0.2/24"}, HostEnd: "mg1"},
	}
}

func TestStateSurvivesItsFile(t *testing.T) {
	dir, want := t.TempDir(), exampleState()
	if err := saveState(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := loadState(dir, "web")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := jsonOf(t, want), jsonOf(t, got); a != b {
		t.Errorf("saved %s\nloaded %s", a, b)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("files are %v", entries)
	}
	if got.Namespace(specs.NetworkNamespace) != "/proc/7/ns/net" {
		t.Errorf("network namespace is %q", got.Namespace(specs.NetworkNamespace))
	}
}

// Tools read these keys of runc's state.json.
func TestStateHasTheKeysOfRunc(t *testing.T) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal([]byte(jsonOf(t, exampleState())), &keys); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"id", "init_process_pid", "init_process_start", "created", "config", "cgroup_paths", "namespace_paths", "external_descriptors"} {
		if keys[key] == nil {
			t.Errorf("no key %q", key)
		}
	}
	if !strings.Contains(string(keys["namespace_paths"]), `"NEWNET":"/proc/7/ns/net"`) {
		t.Errorf("namespace paths are %s", keys["namespace_paths"])
	}
}

func TestLoadNamesWhatIsWrongWithAState(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"cut":           {`{"version":1,"id":"we`, "unexpected end of JSON input"},
		"empty":         {``, "unexpected end of JSON input"},
		"newer":         {`{"version":99,"id":"web"}`, "version 99"},
		"another's":     {`{"version":1,"id":"db"}`, `state of "db"`},
		"without plan":  {`{"version":1,"id":"web"}`, "no config"},
		"not an object": {`[]`, "cannot unmarshal array"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := loadState(dir, "web")
			if _, ok := errors.AsType[*CorruptError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
	if _, err := loadState(t.TempDir(), "web"); !errors.Is(err, ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestCorruptStateHidesNoOtherContainer(t *testing.T) {
	r, ctx := testRuntime(t), context.Background()
	c := testContainer(t, r, testPlan(t, forever), false)
	for name, text := range map[string]string{"broken": "{", "unborn": ""} {
		dir := r.dir(name)
		if err := os.Mkdir(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := r.List()
	if err != nil || len(list) != 1 || list[0].ID() != c.ID() {
		t.Errorf("list is %v, error %v", list, err)
	}
	for _, name := range []string{"broken", "unborn"} {
		if err := r.Remove(ctx, name, true); err != nil {
			t.Error(err)
		}
	}
}

func TestIDs(t *testing.T) {
	r, err := Open(&Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "/", "../x", "a b", "a\n", "ü", "a\x00", strings.Repeat("a", 256)} {
		if _, err := r.Load(id); !errors.Is(err, ErrInvalidID) {
			t.Errorf("id %q: %v", id, err)
		}
		if err := r.Remove(context.Background(), id, true); !errors.Is(err, ErrInvalidID) {
			t.Errorf("remove id %q: %v", id, err)
		}
	}
	for _, id := range []string{"a", "A-b_c+d.e", "..a", "0", strings.Repeat("a", 255)} {
		if _, err := r.Load(id); !errors.Is(err, ErrNotExist) {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

func TestALivePidOfAnotherTimeIsNotAlive(t *testing.T) {
	start, err := process.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !process.Alive(os.Getpid(), start) {
		t.Error("this process is not alive")
	}
	if process.Alive(os.Getpid(), start+1) {
		t.Error("a process that started later is alive")
	}
	if err := procSignal(os.Getpid(), start+1, 0); !errors.Is(err, ErrNotRunning) {
		t.Errorf("signal to a process that started later: %v", err)
	}
}
