package runtime

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	stateFile = "state.json"
	execFifo  = "exec.fifo"
	rootDir   = "root" // mount point of a prepared root, see Prepare
	nullDir   = "null" // mount point of its null device
	// scratchDir is where a restore mounts what CRIU binds.
	scratchDir = "scratch"

	// stateVersion is raised when an older migrate could misread a newer state.
	stateVersion = 1
)

// State is all that is kept of a container, in state.json in its state directory. Everything else is derived from it
// and from the kernel. The keys that runc's state.json has too are spelled as there: tools read them.
type State struct {
	Version              int               `json:"version"`
	ID                   string            `json:"id"`
	InitProcessPid       int               `json:"init_process_pid"`
	InitProcessStartTime uint64            `json:"init_process_start"`
	Created              time.Time         `json:"created"`
	Plan                 *Plan             `json:"config"`
	Rootless             bool              `json:"rootless,omitempty"` // by user id and by cgroups
	RootlessCgroups      bool              `json:"rootless_cgroups,omitempty"`
	SystemdCgroup        bool              `json:"systemd_cgroup,omitempty"`
	CgroupPaths          map[string]string `json:"cgroup_paths,omitempty"` // by controller; cgroup v2: "" only
	NamespacePaths       map[string]string `json:"namespace_paths"`        // by NEWPID ..., see Namespace
	// ExternalDescriptors are where 0, 1 and 2 pointed when init was made.
	ExternalDescriptors []string `json:"external_descriptors,omitempty"`
	IntelRdtPath        string   `json:"intel_rdt_path,omitempty"`     // the container's resctrl group
	IntelRdtMonPath     string   `json:"intel_rdt_mon_path,omitempty"` // and its monitoring group
	IntelRdtOwned       bool     `json:"intel_rdt_owned,omitempty"`    // the group was made for it alone
	Network             *Network `json:"network,omitempty"`            // with the host's end of the link
	OwnsNetwork         bool     `json:"owns_network,omitempty"`       // see PrepareOptions.OwnsNetwork
	Notify              bool     `json:"notify,omitempty"`             // see CreateOptions.Notify
	LogFile             string   `json:"log_file,omitempty"`
	MonitorPid          int      `json:"monitor_pid,omitempty"`
	Move                string   `json:"move,omitempty"`    // the move that may freeze it; see ErrMoving
	Arrival             string   `json:"arrival,omitempty"` // the move that brought it here, for good
	Slowed              bool     `json:"slowed,omitempty"`  // it may have less processor time than it should; see Slow
	// ProcessorTime is what it had before Slow.
	ProcessorTime *ProcessorTime `json:"processor_time,omitempty"`
}

// namespaceKey is a namespace's name in state.json and its file in /proc/PID/ns.
type namespaceKey struct {
	kind      specs.LinuxNamespaceType
	key, file string
}

func namespaceKeys() []namespaceKey {
	return []namespaceKey{
		{specs.CgroupNamespace, "NEWCGROUP", "cgroup"},
		{specs.IPCNamespace, "NEWIPC", "ipc"},
		{specs.MountNamespace, "NEWNS", "mnt"},
		{specs.NetworkNamespace, "NEWNET", "net"},
		{specs.PIDNamespace, "NEWPID", "pid"},
		{specs.TimeNamespace, "NEWTIME", "time"},
		{specs.UserNamespace, "NEWUSER", "user"},
		{specs.UTSNamespace, "NEWUTS", "uts"},
	}
}

// Namespace is the path of one of the container's namespaces, "" when the kernel has no such kind.
func (s *State) Namespace(kind specs.LinuxNamespaceType) string {
	for _, n := range namespaceKeys() {
		if n.kind == kind {
			return s.NamespacePaths[n.key]
		}
	}
	return ""
}

// namespacePaths are those of a process, of every kind that this kernel has.
func namespacePaths(pid int) map[string]string {
	paths := map[string]string{}
	for _, n := range namespaceKeys() {
		if _, err := os.Stat("/proc/self/ns/" + n.file); err == nil {
			paths[n.key] = fmt.Sprintf("/proc/%d/ns/%s", pid, n.file)
		}
	}
	return paths
}

func (s *State) clone() State {
	out := *s
	out.Plan = s.Plan.clone()
	out.CgroupPaths = maps.Clone(s.CgroupPaths)
	out.NamespacePaths = maps.Clone(s.NamespacePaths)
	out.ExternalDescriptors = slices.Clone(s.ExternalDescriptors)
	if s.Network != nil {
		network := *s.Network
		out.Network = &network
	}
	if s.ProcessorTime != nil {
		full := *s.ProcessorTime
		out.ProcessorTime = &full
	}
	return out
}

// loadState reads the state in dir. ErrNotExist when there is none, a *CorruptError when it is not one.
func loadState(dir, id string) (*State, error) {
	s, err := readState(filepath.Join(dir, stateFile), id)
	if err == nil && s.Plan.Spec.Process == nil {
		return nil, &CorruptError{ID: id, Err: errors.New("its config has no process")}
	}
	return s, err
}

func readState(path, id string) (*State, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotExist
	}
	if err == nil {
		var s *State
		if s, err = parseState(data, id); err == nil {
			return s, nil
		}
	}
	return nil, &CorruptError{ID: id, Err: err}
}

// parseState refuses what the rest of the package could not work with.
func parseState(data []byte, id string) (*State, error) {
	s := &State{}
	switch err := json.Unmarshal(data, s); {
	case err != nil:
		return nil, err
	case s.Version != stateVersion:
		return nil, fmt.Errorf("version %d, this program knows %d", s.Version, stateVersion)
	case s.ID != id:
		return nil, fmt.Errorf("it is the state of %q", s.ID)
	case s.Plan == nil || s.Plan.Spec == nil || s.Plan.Spec.Linux == nil:
		return nil, errors.New("it has no config")
	}
	return s, nil
}

// saveState replaces the state in dir at once: a reader, or a crash, meets the old one or the new one, never a part.
func saveState(dir string, s *State) error {
	if err := replaceFile(dir, stateFile, s, true); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

func replaceFile(dir, name string, s *State, sync bool) (err error) {
	tmp, err := os.CreateTemp(dir, "state-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name()))
		}
	}()
	out := bufio.NewWriter(tmp)
	if err := json.NewEncoder(out).Encode(s); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if sync {
		if err := tmp.Sync(); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return tmp.Close()
}

// lockState keeps other processes that change the state out, until release is called. The lock is on the directory, so
// that it leaves no file behind.
func lockState(dir string) (release func(), err error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("lock state: %w", err)
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("lock state: %w", err)
	}
	return func() { d.Close() }, nil
}

// removeStateDir removes a state directory. A prepared root is unmounted first, and its mount point removed as an empty
// directory: removing recursively while it is mounted would delete the container's files.
func removeStateDir(dir string) error {
	if err := unmountPrepared(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("unable to remove container state dir: %w", err)
	}
	return nil
}

// unmountPrepared takes away what Prepare mounted in a state directory.
func unmountPrepared(dir string) error {
	var err error
	for _, name := range []string{nullDir, rootDir, scratchDir} {
		err = errors.Join(err, removeMountPoint(filepath.Join(dir, name)))
	}
	return err
}

// removeMountPoint detaches all that is mounted on a mount point and removes it. One that is not there is no error.
func removeMountPoint(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
			continue
		case errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM): // nothing mounted, or nothing we could have mounted
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove mount point: %w", err)
			}
			return nil
		}
		return fmt.Errorf("unmount %s: %w", path, err)
	}
}
