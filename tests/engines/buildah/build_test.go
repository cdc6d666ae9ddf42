package buildah

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/engines/image"
	"github.com/livemigrate/migrate/tests/sandbox"
)

// store is buildah with images and containers of its own.
type store struct {
	t   *testing.T
	dir string
}

// newStore has the image of busybox.
func newStore(t *testing.T) *store {
	t.Helper()
	testutil.Root(t)
	testutil.Command(t, "buildah")
	testutil.Command(t, "busybox")
	s := &store{t: t, dir: filepath.Join(sandbox.Dir(), t.Name())}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.do("pull", "--quiet", "oci-archive:"+filepath.Join(sandbox.Dir(), "busybox.tar"))
	t.Cleanup(func() { s.do("rm", "--all") })
	return s
}

// try runs buildah, and returns its output, what else it and the runtime say, and the exit code.
func (s *store) try(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	global := []string{"--root", filepath.Join(s.dir, "root"), "--runroot", filepath.Join(s.dir, "run"), "--storage-driver", "vfs"}
	cmd := exec.CommandContext(ctx, "buildah", append(global, args...)...)
	cmd.Env = append(os.Environ(), "BUILDAH_RUNTIME="+sandbox.Runtime(), "BUILDAH_ISOLATION=oci", "TMPDIR="+s.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited || ctx.Err() != nil {
		s.t.Fatalf("buildah %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (s *store) do(args ...string) string {
	s.t.Helper()
	stdout, stderr, code := s.try(args...)
	if code != 0 {
		s.t.Fatalf("buildah %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return strings.TrimSpace(stdout)
}

func TestBuilds(t *testing.T) {
	testutil.Root(t)
	t.Run("StepByStep", stepByStep)
	t.Run("FromAFile", fromAFile)
	t.Run("FromScratch", fromScratch)
}

func stepByStep(t *testing.T) {
	s := newStore(t)
	container := s.do("from", image.Busybox)
	volume := t.TempDir()
	tests := []struct {
		name  string
		flags []string
		argv  []string
		want  string
		code  int
	}{
		{"what it does stays", nil, []string{"sh", "-c", "echo made > /made; cat /made"}, "made", 0},
		{"exit code", nil, []string{"sh", "-c", "exit 3"}, "", 3},
		{"user", []string{"--user", "someone"}, []string{"id", "-u"}, "1000", 0},
		{"environment", []string{"--env", "A=b"}, []string{"sh", "-c", "echo $A"}, "b", 0},
		{"working directory", []string{"--workingdir", "/tmp"}, []string{"pwd"}, "/tmp", 0},
		{"volume", []string{"--volume", volume + ":/v"}, []string{"sh", "-c", "echo kept > /v/file; stat -c %F /v"}, "directory", 0},
		{"capability dropped", []string{"--cap-drop", "CAP_CHOWN"}, []string{"sh", "-c", "chown 1 /made 2>/dev/null || echo refused"}, "refused", 0},
		{"hostname", []string{"--hostname", "builder"}, []string{"hostname"}, "builder", 0},
	}
	for _, tt := range tests {
		args := append([]string{"run"}, tt.flags...)
		args = append(append(args, container, "--"), tt.argv...)
		stdout, stderr, code := s.try(args...)
		if code != tt.code || strings.TrimSpace(stdout) != tt.want {
			t.Errorf("%s: exit code %d, output %q, want %d, %q; %s", tt.name, code, stdout, tt.code, tt.want, stderr)
		}
	}
	if text, err := os.ReadFile(filepath.Join(volume, "file")); string(text) != "kept\n" {
		t.Errorf("the volume has %q, %v", text, err)
	}
	if _, stderr, code := s.try("run", container, "--", "/no/such/program"); code == 0 || !strings.Contains(stderr, "no such file or directory") {
		t.Errorf("a missing program: exit code %d: %s", code, stderr)
	}
	s.do("commit", "--quiet", container, "localhost/stepped:1")
	next := s.do("from", "localhost/stepped:1")
	if got := s.do("run", next, "--", "cat", "/made"); got != "made" {
		t.Errorf("the committed image has %q", got)
	}
}

func fromAFile(t *testing.T) {
	s := newStore(t)
	source := t.TempDir()
	for name, text := range map[string]string{
		"Containerfile": "FROM " + image.Busybox + "\nARG WHO=nobody\nCOPY words /words\nRUN cat /words > /made && echo $WHO >> /made\n" +
			"RUN [\"sh\", \"-c\", \"id -u >> /made\"]\nUSER someone\nWORKDIR /home/someone\nRUN id -u > /tmp/user && pwd >> /tmp/user\nCMD [\"cat\", \"/made\"]\n",
		"words":  "words\n",
		"Broken": "FROM " + image.Busybox + "\nRUN exit 7\n",
	} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.do("bud", "--build-arg", "WHO=me", "--tag", "localhost/built:1", "--file", filepath.Join(source, "Containerfile"), source)
	built := s.do("from", "localhost/built:1")
	if got := s.do("run", built, "--", "cat", "/made", "/tmp/user"); got != "words\nme\n0\n1000\n/home/someone" {
		t.Errorf("the built image has %q", got)
	}
	if _, stderr, code := s.try("bud", "--file", filepath.Join(source, "Broken"), source); code != 7 || !strings.Contains(stderr, "exit status 7") {
		t.Errorf("a step that fails: exit code %d: %s", code, stderr)
	}
}

func fromScratch(t *testing.T) {
	s := newStore(t)
	container := s.do("from", "scratch")
	s.do("copy", container, testutil.Command(t, "busybox"), "/bin/sh")
	if got := s.do("run", container, "--", "/bin/sh", "-c", "echo alone"); got != "alone" {
		t.Errorf("output %q", got)
	}
}
