// Package podman runs Debian's podman with migrate in runc's place. Each test does what podman's users do, and looks at
// what they would see.
//
// PODMAN_RUNTIME names another runtime: where a test fails with that one too, it is not migrate's fault.
package podman

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/tests/sandbox"
)

// As root the test program runs three times: as it was started; as pid 1 of namespaces of its own; and for the tests.
const (
	inside = "PODMAN_INSIDE" // set in the second and third: a directory that goes with them
	tests  = "PODMAN_TESTS"  // set in the third
)

// TestMain is the three runs.
func TestMain(m *testing.M) {
	run := again
	switch {
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	case os.Getenv(tests) != "":
		run = func() (int, error) { return m.Run(), errors.Join(dropStore(), findLeftovers()) }
	case os.Getenv(inside) != "":
		run = firstProcess
	}
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// again builds the runtime and runs this program in namespaces of its own: what engines start (a conmon a container) and
// make (bridges, mounts) goes with them, whatever happens.
func again() (code int, err error) {
	dir, err := os.MkdirTemp("", "podman-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeCgroups(filepath.Base(dir)), os.RemoveAll(dir)) }()
	if err := prepare(dir); err != nil {
		return 0, err
	}
	return sandbox.Enter(inside + "=" + dir)
}

// prepare makes what the tests need that is made without podman: the runtime, and podman's configuration.
func prepare(dir string) error {
	// The root of a container's user namespace goes through it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if _, err := sandbox.Build(dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "containers.conf"), []byte(configuration(dir)), 0o644)
}

// configuration is what somebody writes who uses migrate under podman, and what this machine may lack: systemd, the right
// to raise limits, a network.
func configuration(dir string) string {
	const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	return fmt.Sprintf(`
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
conmon_env_vars = ["PATH=%s"]
runtime_supports_json = ["migrate", "runc"]
[network]
network_backend = "cni"
network_config_dir = "%s/networks"
`, sandbox.PathWithCRIU(path), dir)
}

// firstProcess sets up the namespaces, starts the tests, and reaps what they leave.
func firstProcess() (int, error) {
	mounts := []struct{ kind, target string }{
		{"proc", "/proc"},
		{"tmpfs", "/run"},     // state of containers, and CRIU's probe cache
		{"tmpfs", "/dev/shm"}, // podman's locks: one file for every store on the machine
	}
	for _, m := range mounts {
		if err := syscall.Mount(m.kind, m.target, m.kind, 0, ""); err != nil {
			return 0, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	// /var/lib: podman and the network plugins write there, whatever store they are told to use. /etc: a user is added.
	if err := errors.Join(sandbox.Cover("/var/lib"), sandbox.Cover("/etc"), addUser()); err != nil {
		return 0, err
	}
	if err := hideUnmountedControllers(os.Getenv(inside)); err != nil {
		return 0, err
	}
	if err := exec.CommandContext(context.Background(), "ip", "link", "set", "lo", "up").Run(); err != nil {
		return 0, err
	}
	if err := sandbox.Share(); err != nil {
		return 0, err
	}
	return sandbox.Again(tests + "=1")
}
