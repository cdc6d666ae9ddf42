package spec

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// hook runs a script with the state on its standard input.
func hook(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

// moments are the six kinds of hooks in their order, with the status that each is told.
func moments(h *specs.Hooks) []struct {
	name, status string
	list         *[]specs.Hook
} {
	return []struct {
		name, status string
		list         *[]specs.Hook
	}{
		{"prestart", "creating", &h.Prestart}, //nolint:staticcheck // SA1019: engines use it.
		{"createRuntime", "creating", &h.CreateRuntime},
		{"createContainer", "creating", &h.CreateContainer},
		{"startContainer", "created", &h.StartContainer},
		{"poststart", "running", &h.Poststart},
		{"poststop", "stopped", &h.Poststop},
	}
}

func TestHooksOfAllSixKindsRunInOrder(t *testing.T) {
	b := newBox(t, "echo program >> /tmp/log; readlink /proc/self/ns/mnt >> /tmp/ns; sleep 2")
	log := filepath.Join(b.rootfs, "tmp/log")
	b.spec.Annotations = map[string]string{"owner": "me"}
	b.spec.Hooks = &specs.Hooks{}
	for _, m := range moments(b.spec.Hooks) {
		path := log
		if m.name == "startContainer" {
			path = "/tmp/log" // its root is the container's
		}
		for i := range 2 {
			h := hook(fmt.Sprintf(`read -r state; echo "%s %d $(readlink /proc/self/ns/mnt) $MARK $state" >> %s`, m.name, i, path))
			h.Env = append(h.Env, "MARK="+m.name)
			*m.list = append(*m.list, h)
		}
	}
	if got := b.run(); got.code != 0 {
		t.Fatal(got.stderr)
	}
	host, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	got := lines(text(t, log))
	// The program and the poststart hooks run at the same time.
	var program int
	for i, line := range got {
		if line == "program" {
			program = i
		}
	}
	if program < 8 || program > 10 {
		t.Errorf("the program ran as number %d", program)
	}
	got = append(got[:program:program], got[program+1:]...)
	i := 0
	for _, m := range moments(b.spec.Hooks) {
		for number := range 2 {
			fields := strings.SplitN(got[i], " ", 5)
			i++
			var state specs.State
			if len(fields) != 5 || json.Unmarshal([]byte(fields[4]), &state) != nil {
				t.Fatalf("line %d: %v", i, fields)
			}
			inside := m.name == "createContainer" || m.name == "startContainer"
			if fields[0] != m.name || fields[1] != fmt.Sprint(number) || (fields[2] == host) == inside || fields[3] != m.name ||
				string(state.Status) != m.status || state.ID != b.id || state.Bundle != b.bundle || state.Annotations["owner"] != "me" ||
				state.Version == "" || (state.Pid == 0) != (m.name == "poststop") {
				t.Errorf("line %d, %s #%d: %s", i, m.name, number, got[i-1])
			}
		}
	}
}

func TestFailingHookEndsWhatItStandsBefore(t *testing.T) {
	for _, m := range moments(&specs.Hooks{}) {
		t.Run(m.name, func(t *testing.T) {
			b := newBox(t, "echo ran > /tmp/ran; sleep 60")
			b.spec.Hooks = &specs.Hooks{}
			for _, own := range moments(b.spec.Hooks) {
				if own.name == m.name {
					*own.list = []specs.Hook{hook("echo no, thanks >&2; exit 7"), hook("touch " + b.bundle + "/second /second")}
				}
			}
			b.write()
			began := time.Now()
			got := b.migrate("run", "--detach", b.id)
			_, ran := os.Stat(filepath.Join(b.rootfs, "tmp/ran"))
			_, second := os.Stat(filepath.Join(b.bundle, "second"))
			if second == nil {
				t.Error("the next hook ran, too")
			}
			switch m.name {
			case "startContainer":
				// Why, is said on the container's own standard error: its init has no other voice left.
				if got.code == 0 || !strings.Contains(got.stderr, "startContainer hook #0: exit status 7: no, thanks") || ran == nil {
					t.Errorf("exit code %d: %s", got.code, got.stderr)
				}
			case "poststop":
				if got.code != 0 {
					t.Fatal(got.stderr)
				}
				if got = b.migrate("delete", "--force", b.id); !strings.Contains(got.stderr, "poststop hook #0") {
					t.Errorf("delete: %d: %s", got.code, got.stderr)
				}
			default:
				if got.code == 0 || !strings.Contains(got.stderr, m.name+" hook #0: exit status 7: no, thanks") {
					t.Errorf("exit code %d: %s", got.code, got.stderr)
				}
				if m.name != "poststart" && ran == nil {
					t.Error("the program ran")
				}
			}
			if _, err := os.Stat(b.stateDir()); err == nil {
				t.Error("the container is left")
			}
			if time.Since(began) > 20*time.Second {
				t.Error("it took as long as the program")
			}
		})
	}
}

func TestHookThatHangsIsEndedByItsTimeout(t *testing.T) {
	for _, m := range moments(&specs.Hooks{})[:3] {
		b := newBox(t, "true")
		b.spec.Hooks = &specs.Hooks{}
		for _, own := range moments(b.spec.Hooks) {
			if own.name == m.name {
				h := hook("sleep 60")
				h.Timeout = pointer(1)
				*own.list = []specs.Hook{h}
			}
		}
		began := time.Now()
		if got := b.run(); got.code == 0 || !strings.Contains(got.stderr, "hook ran past specified timeout of 1.0s") {
			t.Errorf("%s: exit code %d: %s", m.name, got.code, got.stderr)
		}
		if time.Since(began) > 15*time.Second {
			t.Errorf("%s: it took %v", m.name, time.Since(began))
		}
	}
	refused(t, []row{
		{"timeout of nothing", func(b *box) {
			h := hook("true")
			h.Timeout = pointer(0)
			b.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{h}}
		}, "", "timeout must be greater than 0"},
		{"relative path", func(b *box) { b.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "true"}}} }, "", "is not absolute"},
	})
}
