package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestUnknownContainerIsNamedByEveryVerb(t *testing.T) {
	h := newHost(t)
	for _, args := range [][]string{
		{"start", "nope"},
		{"state", "nope"},
		{"kill", "nope"},
		{"delete", "nope"},
		{"pause", "nope"},
		{"resume", "nope"},
		{"ps", "nope"},
		{"events", "nope"},
		{"update", "nope"},
		{"exec", "nope", "true"},
	} {
		got := h.run(args...)
		want, code := "container does not exist", 1
		if args[0] == "exec" {
			want, code = "exec failed: container does not exist", 255
		}
		if got.code != code || message(t, got.stderr) != want || got.stdout != "" {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, got.code, got.stdout, got.stderr)
		}
	}
	if got := h.run("delete", "--force", "nope"); got.code != 0 || got.stderr != "" {
		t.Errorf("delete --force: exit code %d: %s", got.code, got.stderr)
	}
}

func TestInvalidIDIsRefusedByEveryVerb(t *testing.T) {
	h := newHost(t)
	h.configureRootfs()
	for _, args := range [][]string{
		{"create"},
		{"run"},
		{"start"},
		{"state"},
		{"kill"},
		{"delete"},
		{"delete", "--force"},
		{"pause"},
		{"resume"},
		{"ps"},
		{"events"},
		{"update"},
	} {
		for _, id := range []string{"a/b", "..", "../" + filepath.Base(h.bundle), strings.Repeat("x", 300)} {
			got := h.run(append(args, id)...)
			if got.code != 1 || !strings.Contains(message(t, got.stderr), "invalid container ID format: ") {
				t.Errorf("%v %s: exit code %d, stderr %q", args, id, got.code, got.stderr)
			}
		}
		got := h.run(append(args, "")...)
		if got.code != 1 || !strings.Contains(message(t, got.stderr), "container id cannot be empty") {
			t.Errorf("%v with an empty id: exit code %d, stderr %q", args, got.code, got.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(h.bundle, "config.json")); err != nil {
		t.Errorf("a bundle was removed: %v", err)
	}
}

// configureRootfs makes a bundle that can be parsed, and not run.
func (h *host) configureRootfs() {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Join(h.bundle, "rootfs"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.configure("true")
}

func TestBadBundlesAreRefusedBeforeAnythingIsMade(t *testing.T) {
	h := newHost(t)
	write := func(text string) func() {
		return func() {
			if err := os.WriteFile(filepath.Join(h.bundle, "config.json"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		prepare func()
		args    []string
		want    string
	}{
		"missing bundle":    {h.configureRootfs, []string{"--bundle", "/nonexistent"}, "open bundle: stat /nonexistent: no such file or directory"},
		"no config":         {func() { _ = os.Remove(filepath.Join(h.bundle, "config.json")) }, nil, "JSON specification file config.json not found"},
		"broken config":     {write("{\n\"ociVersion\": }"), nil, "line 2: invalid character '}'"},
		"empty config":      {write(""), nil, "unexpected end of JSON input"},
		"null config":       {write("null"), nil, "config cannot be null"},
		"no process":        {write(`{"root":{"path":"/"}}`), nil, "process property must not be empty"},
		"terminal detached": {func() { h.configureRootfs(); h.configure("true", terminal) }, []string{"--detach"}, "cannot allocate tty"},
		"console socket":    {h.configureRootfs, []string{"--console-socket", "/x"}, "cannot use console socket"},
		"bad network":       {h.configureRootfs, []string{"--network", "bridge=br0"}, "address is missing"},
		"log file":          {h.configureRootfs, []string{"--log-file", "/x"}, "--log-file needs --detach"},
		"preserve fds":      {h.configureRootfs, []string{"--preserve-fds", "50"}, "unable to stat preserved-fd"},
	} {
		t.Run(name, func(t *testing.T) {
			c.prepare()
			got := h.run(append(append([]string{"run"}, c.args...), "x")...)
			text := message(t, got.stderr)
			if got.code != 1 || !strings.Contains(text, c.want) || !strings.Contains(text, "run failed: ") {
				t.Errorf("exit code %d, stderr %q, want %q", got.code, got.stderr, c.want)
			}
			if left, _ := os.ReadDir(h.root); len(left) > 0 {
				t.Errorf("left in the root: %v", left)
			}
		})
	}
}

func terminal(s *specs.Spec) { s.Process.Terminal = true }

func TestWrongCommandLines(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"state"}, `"state" requires exactly 1 argument(s)`},
		{[]string{"state", "a", "b"}, `"state" requires exactly 1 argument(s)`},
		{[]string{"kill"}, `"kill" requires a minimum of 1 argument(s)`},
		{[]string{"kill", "a", "b", "c"}, `"kill" requires a maximum of 2 argument(s)`},
		{[]string{"list", "x"}, `"list" requires exactly 0 argument(s)`},
		{[]string{"list", "--nonsense"}, "unknown flag: --nonsense"},
	} {
		got := h.run(c.args...)
		if got.code != 1 || !strings.Contains(message(t, got.stderr), c.want) {
			t.Errorf("%v: exit code %d, stderr %q, want %q", c.args, got.code, got.stderr, c.want)
		}
	}
	for _, c := range []struct{ flag, value, want string }{
		{"--log-format", "xml", "invalid log-format: xml"}, {"--root", "/", "--root argument should not be set to /"},
	} {
		cmd := h.command(c.flag, c.value, "list")
		if got := h.finish(cmd); got.code != 1 || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s %s: exit code %d, stderr %q", c.flag, c.value, got.code, got.stderr)
		}
	}
}

func TestWrongArgumentsAreNamedByEveryVerb(t *testing.T) {
	h := newHost(t)
	h.configureRootfs()
	for verb, c := range map[string]struct {
		least, most int // arguments; most -1: any number
		code        int
	}{
		"create": {1, 1, 1}, "run": {1, 1, 1}, "start": {1, 1, 1}, "state": {1, 1, 1}, "delete": {1, 1, 1}, "pause": {1, 1, 1},
		"resume": {1, 1, 1}, "events": {1, 1, 1}, "update": {1, 1, 1}, "kill": {1, 2, 1}, "ps": {1, -1, 1}, "exec": {1, -1, 1},
		"checkpoint": {1, 1, 1}, "restore": {1, 1, 1}, "list": {0, 0, 1}, "features": {0, 0, 1}, "spec": {0, 0, 1},
	} {
		lines := [][]string{{verb, "--nonsense"}}
		if c.least > 0 {
			lines = append(lines, []string{verb})
		}
		if c.most >= 0 {
			lines = append(lines, append([]string{verb}, strings.Fields(strings.Repeat("x ", c.most+1))...))
		}
		for _, args := range lines {
			got := h.run(args...)
			text := message(t, got.stderr)
			if got.code != c.code || got.stdout != "" || !strings.Contains(text, "requires") && !strings.Contains(text, "--nonsense") {
				t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, got.code, got.stdout, got.stderr)
			}
		}
	}
	if left, _ := os.ReadDir(h.root); len(left) > 0 {
		t.Errorf("left in the root: %v", left)
	}
}

// Engines take the cause of a failure from the last line of the log.
func TestLogHasTheFormOfRunc(t *testing.T) {
	h := newHost(t)
	file := filepath.Join(t.TempDir(), "log")
	got := h.run("--log", file, "--log-format", "json", "state", "nope")
	if got.code != 1 || got.stderr != "container does not exist\n" {
		t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var line struct{ Level, Msg, Time string }
	if err := json.Unmarshal(data, &line); err != nil || line.Level != "error" || line.Msg != "container does not exist" || line.Time == "" {
		t.Errorf("log is %s, error %v", data, err)
	}
	if !strings.HasPrefix(string(data), `{"level":"error","msg":`) {
		t.Errorf("order of keys: %s", data)
	}
	h.run("--log", file, "--log-format", "json", "kill") // a usage error
	if data, _ := os.ReadFile(file); strings.Count(string(data), "\n") != 2 {
		t.Errorf("log is %s", data)
	}
}

// A profile for many kernels names capabilities that this one has not. It is said once, and nothing else is wrong.
func TestUnknownCapabilityIsSaidOnce(t *testing.T) {
	h := newContainerHost(t, "true", func(s *specs.Spec) {
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_PRAY")
		s.Process.Capabilities.Permitted = append(s.Process.Capabilities.Permitted, "CAP_PRAY", "CAP_HOPE")
	})
	const want = "ignoring unknown or unavailable capabilities: [CAP_HOPE CAP_PRAY]"
	if got := h.run("run", h.id("caps")); got.code != 0 || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr, want) {
		t.Errorf("run: exit code %d: %s", got.code, got.stderr)
	}
	h.configure("sleep 100")
	h.ok("run", "-d", h.id("caps"))
	if got := h.run("exec", "--cap", "CAP_PRAY", h.id("caps"), "true"); got.code != 0 || strings.Count(got.stderr, "capabilities: [CAP_PRAY]") != 1 {
		t.Errorf("exec: exit code %d: %s", got.code, got.stderr)
	}
}
