package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// NotifyEnv is the variable that names the socket of sd_notify(3): the host's for us, ours for the program.
const NotifyEnv = "NOTIFY_SOCKET"

// The socket by which a program says that it is ready (sd_notify(3)): in the state directory, and in the container.
const (
	notifyDir       = "notify"
	notifySocket    = "notify.sock"
	notifyDirInside = "/run/notify"
)

// NotifySocket is where the caller may listen for what the container's program says by sd_notify(3), "" when the
// container was made without CreateOptions.Notify.
func (c *Container) NotifySocket() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.state.Notify {
		return ""
	}
	return filepath.Join(c.dir, notifyDir, notifySocket)
}

// makeNotifyDir makes the directory that is mounted into the container: whoever starts it makes the socket, for it is that
// process which talks to the service manager.
func (c *creation) makeNotifyDir() error {
	dir := filepath.Join(c.dir, notifyDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of the notify socket: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the umask may have cut it
		return fmt.Errorf("make directory of the notify socket: %w", err)
	}
	c.state.Notify = true
	return nil
}

// mountedSpec is the config with what the runtime itself mounts. It is never stored: a restored container, and one that
// has moved, have another state directory.
func (c *Container) mountedSpec() *specs.Spec {
	spec := c.state.Plan.Spec
	if !c.state.Notify {
		return spec
	}
	out := *spec
	out.Mounts = append(slices.Clone(spec.Mounts), specs.Mount{
		Source: filepath.Join(c.dir, notifyDir), Destination: notifyDirInside, Type: "bind",
		Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	return &out
}

// withNotifySocket tells the program about the socket, but not those that exec adds later.
func withNotifySocket(spec *specs.Spec) *specs.Spec {
	out, process := *spec, *spec.Process
	process.Env = append(slices.Clone(process.Env), NotifyEnv+"="+notifyDirInside+"/"+notifySocket)
	out.Process = &process
	return &out
}
