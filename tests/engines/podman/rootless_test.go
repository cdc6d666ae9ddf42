package podman

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/engines/image"
)

// user is somebody without any rights on this machine but 65,536 subordinate ids.
const (
	user   = "migrate-podman"
	userID = 474747
)

func userRunDir() string { return fmt.Sprintf("/run/user/%d", userID) }

// addUser makes the user, in the /etc of these tests.
func addUser() error {
	lines := map[string]string{
		"passwd": fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", user, userID, userID, filepath.Join(os.Getenv(inside), "home")),
		"group":  fmt.Sprintf("%s:x:%d:\n", user, userID),
		"subuid": user + ":500000:65536\n",
		"subgid": user + ":500000:65536\n",
	}
	var all error
	for name, line := range lines {
		f, err := os.OpenFile(filepath.Join("/etc", name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.WriteString(line)
			err = errors.Join(err, f.Close())
		}
		all = errors.Join(all, err)
	}
	return all
}

// userCommand is podman as the user calls it, on a store of the user's.
func userCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "podman", append([]string{"--storage-driver", "vfs", "--runtime", runtimePath()}, args...)...)
	cmd.Dir = filepath.Join(storeDir(), "home")
	cmd.Env = []string{
		"HOME=" + cmd.Dir, "USER=" + user, "XDG_RUNTIME_DIR=" + userRunDir(), "PATH=" + os.Getenv("PATH"),
		"CONTAINERS_CONF=" + filepath.Join(cmd.Dir, "containers.conf"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: userID, Gid: userID}}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// becomeUser gives the user what a login would, and the image.
func (e *engine) becomeUser() {
	e.Helper()
	testutil.Command(e, "newuidmap")
	home := filepath.Join(storeDir(), "home")
	archive := filepath.Join(home, "image.tar")
	if err := errors.Join(
		os.MkdirAll(filepath.Dir(userRunDir()), 0o755), os.Mkdir(userRunDir(), 0o700), os.Chown(userRunDir(), userID, userID),
		os.Mkdir(home, 0o700), os.Chown(home, userID, userID),
		os.WriteFile(filepath.Join(home, "containers.conf"), []byte(configuration(home)), 0o644),
		image.WriteBusybox(archive),
	); err != nil {
		e.Fatal(err)
	}
	// podman leaves a process that holds the user's namespace, and this ends it.
	e.Cleanup(func() {
		if out, err := userCommand(context.Background(), "system", "migrate").CombinedOutput(); err != nil {
			e.Errorf("podman system migrate: %v: %s", err, out)
		}
	})
	e.userDo("load", "--quiet", "--input", archive)
}

func (e *engine) userDo(args ...string) string {
	e.Helper()
	got := e.finish(userCommand(e.Context(), args...))
	if got.code != 0 {
		e.Fatalf("podman %s: exit code %d: %s%s", strings.Join(args, " "), got.code, got.stdout, got.stderr)
	}
	return strings.TrimSuffix(got.stdout, "\n")
}

func TestUserWithoutRightsRunsContainers(t *testing.T) {
	e := newEngine(t)
	e.becomeUser()
	run := func(script string, options ...string) string {
		t.Helper()
		return e.userDo(append(append([]string{"run", "--rm"}, options...), image.Busybox, "sh", "-c", script)...)
	}
	e.same("root inside", run("id -u; tr -s ' ' </proc/self/uid_map; touch /made && echo made"), "0\n 0 474747 1\n 1 500000 65536\nmade")
	e.same("a namespace in the namespace", run("id -u; tr -s ' ' </proc/self/uid_map", "--uidmap", "0:1:1000"), "0\n 0 1 1000")
	e.same("the user inside", run("id -u", "--userns", "keep-id"), "474747")
	e.same("read-only, as a user", run("id -u; touch /x 2>/dev/null || echo no", "--read-only", "--user", "someone"), "1000\nno")
	if got := e.finish(userCommand(t.Context(), "run", "--rm", image.Busybox, "sh", "-c", "exit 3")); got.code != 3 {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}

	e.userDo("run", "--detach", "--name", "c", image.Busybox, "sh", "-c", ticking)
	e.same("exec", e.userDo("exec", "--user", "someone", "c", "id", "-u"), "1000")
	e.holds("top", e.userDo("top", "c", "args"), "sleep 0.1")
	e.userDo("stop", "--time", "10", "c")
	e.same("exit code", e.userDo("wait", "c"), "7")
	e.holds("log", e.userDo("logs", "c"), "bye")
	e.userDo("rm", "c")
}
