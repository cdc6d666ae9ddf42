package podman

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/tests/engines/image"
)

func TestExitCodeOfRunIsTheProgramsOwn(t *testing.T) {
	e := newEngine(t)
	tests := []struct {
		name   string
		code   int
		stderr string
		args   []string
	}{
		{"success", 0, "", []string{"true"}},
		{"program's own", 3, "", []string{"sh", "-c", "exit 3"}},
		{"not found", 127, "not found", []string{"no-such-program"}},
		{"not found at its path", 127, "not found", []string{"/no/such/program"}},
		{"not executable", 126, "permission denied", []string{"/etc/passwd"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEngine(t)
			got := e.try(append([]string{"run", "--rm", "--cgroup-parent", "/" + cgroupParent(), image.Busybox}, tt.args...)...)
			if got.code != tt.code {
				t.Errorf("exit code %d, want %d: %s", got.code, tt.code, got.stderr)
			}
			e.holds("stderr", got.stderr, tt.stderr)
		})
	}
	e.same("containers after --rm", e.do("ps", "--all", "--quiet", "--filter", "ancestor="+image.Busybox), "")
}

// Half of these programs end before the runtime's start returns, and their conmon reaps them.
func TestShortProgramsRunEveryTime(t *testing.T) {
	e := newEngine(t)
	for range 8 {
		if got := e.once("exit 0"); got.code != 0 {
			t.Errorf("exit code %d: %s", got.code, got.stderr)
		}
	}
}

func TestOutputAndInputReachTheCaller(t *testing.T) {
	e := newEngine(t)
	got := e.once("echo out; echo err >&2")
	e.same("stdout", got.stdout, "out\n")
	e.same("stderr", got.stderr, "err\n")
	cmd := command(t.Context(), "run", "--rm", "--interactive", "--cgroup-parent", "/"+cgroupParent(), image.Busybox, "wc", "-c")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
	e.same("bytes that arrived", e.finish(cmd).stdout, "1048576\n")
}

func TestRunGivesTheProgramItsSurroundings(t *testing.T) {
	e := newEngine(t)
	e.same("surroundings",
		e.says("echo $COLOUR; pwd; id -u; id -g; id -G; umask; hostname; cat /proc/sys/kernel/hostname",
			"--env", "COLOUR=green", "--workdir", "/var/tmp", "--user", "someone", "--group-add", "3000", "--umask", "0027", "--hostname", "inside"),
		"green\n/var/tmp\n1000\n1000\n1000 2000 3000\n0027\ninside\ninside")
	e.same("a user by number", e.says("id -u; id -g", "--user", "12345:54321"), "12345\n54321")
	e.same("an entry point", e.do("run", "--rm", "--cgroup-parent", "/"+cgroupParent(), "--entrypoint", `["echo","a"]`, image.Busybox, "b"), "a b")
}

func TestInitReapsOrphans(t *testing.T) {
	e := newEngine(t)
	got := e.says(`(sleep 0.1 &) ; sleep 0.5; cat /proc/1/comm; ps -o stat | grep -c ^Z; true`, "--init")
	e.same("pid 1, and zombies", got, "podman-init\n0")
}

func TestHooksOfTheEngineRun(t *testing.T) {
	e := newEngine(t)
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	script := "#!/bin/sh\n{ echo -n \"$1 \"; cat; echo; } >>" + said + "\n"
	if err := os.WriteFile(filepath.Join(dir, "hook"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, stage := range []string{"prestart", "poststart", "poststop"} {
		text := `{"version":"1.0.0","hook":{"path":"` + dir + `/hook","args":["hook","` + stage + `"]},"when":{"always":true},"stages":["` + stage + `"]}`
		if err := os.WriteFile(filepath.Join(dir, stage+".json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command(t.Context(), "--hooks-dir", dir, "run", "--rm", "--cgroup-parent", "/"+cgroupParent(), image.Busybox, "true")
	if got := e.finish(cmd); got.code != 0 {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
	text, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 3 {
		t.Fatalf("hooks said %q", text)
	}
	for i, stage := range []string{"prestart", "poststart", "poststop"} {
		e.holds("hook", lines[i], stage+" {")
		e.holds("hook", lines[i], `"status":`)
	}
}
