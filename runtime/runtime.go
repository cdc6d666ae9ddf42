package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/livemigrate/migrate/runtime/internal/launch"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/cgroups/systemd"
)

// Options of Open; nil and zero values are the defaults.
type Options struct {
	Root          string       // directory of the containers' state; /run/migrate
	SystemdCgroup bool         // let systemd make the cgroups
	Rootless      string       // "true", "false" or "auto": are failing cgroup operations to be expected
	Log           *slog.Logger // nil discards
}

// Runtime is one root directory with the containers whose state is in it. Safe for concurrent use, also by several
// processes.
type Runtime struct {
	root            string
	systemd         bool
	rootlessCgroups bool
	log             *slog.Logger
}

// Open takes a root directory, which need not exist: Create makes it. Nothing has to be closed.
func Open(o *Options) (*Runtime, error) {
	if o == nil {
		o = &Options{}
	}
	r := &Runtime{root: o.Root, systemd: o.SystemdCgroup, log: o.Log}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.root == "" {
		r.root = "/run/migrate"
	}
	root, err := filepath.Abs(r.root)
	if err != nil {
		return nil, fmt.Errorf("find root: %w", err)
	}
	if root == "/" {
		return nil, errors.New("option --root argument should not be set to /")
	}
	r.root = root
	r.rootlessCgroups, err = rootlessCgroups(o)
	return r, err
}

// rootlessCgroups guesses, when it is not told, whether cgroups may be out of reach.
func rootlessCgroups(o *Options) (bool, error) {
	switch {
	case o.Rootless != "" && !strings.EqualFold(o.Rootless, "auto"):
		return strconv.ParseBool(o.Rootless)
	case os.Geteuid() != 0:
		return true, nil
	case !userns.RunningInUserNS():
		return false, nil
	case o.SystemdCgroup:
		// Root of a user namespace may have a systemd of its own. When it cannot be asked, it is taken to be ours.
		uid, err := systemd.DetectUID()
		return err == nil && uid != 0, nil
	}
	return true, nil
}

// Root is the directory of the containers' state.
func (r *Runtime) Root() string { return r.root }

// Load finds a container. ErrInvalidID, ErrNotExist, or a *CorruptError.
func (r *Runtime) Load(id string) (*Container, error) {
	if err := validateID(id); err != nil {
		return nil, err
	}
	dir := r.dir(id)
	state, err := loadState(dir, id)
	if err != nil {
		return nil, err
	}
	return r.open(dir, id, state)
}

// open makes a container of its state.
func (r *Runtime) open(dir, id string, state *State) (*Container, error) {
	config, err := state.Plan.cgroupConfig(id, state.SystemdCgroup, state.RootlessCgroups)
	if err != nil {
		return nil, &CorruptError{ID: id, Err: err}
	}
	group, err := cgroup.Open(config, state.CgroupPaths)
	if err != nil {
		return nil, fmt.Errorf("open cgroup of container %s: %w", id, err)
	}
	return &Container{id: id, dir: dir, state: state, group: group, log: r.log}, nil
}

// List loads every container. One whose state cannot be read is logged and left out, so that it does not hide the
// others. A root that does not exist is an error of its own (fs.ErrNotExist).
func (r *Runtime) List() ([]*Container, error) {
	entries, err := os.ReadDir(r.root)
	if err != nil {
		return nil, err
	}
	var list []*Container
	for _, entry := range entries {
		if !entry.IsDir() || validateID(entry.Name()) != nil {
			continue
		}
		c, err := r.Load(entry.Name())
		switch {
		case err == nil:
			list = append(list, c)
		case errors.Is(err, ErrNotExist): // being made, prepared for a restore, or just deleted
		default:
			r.log.Warn(fmt.Sprintf("load container %s: %v", entry.Name(), err))
		}
	}
	return list, nil
}

// StateDir is where the state of a container of this id is, or would be.
func (r *Runtime) StateDir(id string) (string, error) {
	if err := validateID(id); err != nil {
		return "", err
	}
	return r.dir(id), nil
}

func (r *Runtime) dir(id string) string { return filepath.Join(r.root, id) }

// reserve makes the state directory, which is what an id is taken by.
func (r *Runtime) reserve(id string) (dir string, err error) {
	if err := validateID(id); err != nil {
		return "", err
	}
	if err := os.MkdirAll(r.root, 0o700); err != nil {
		return "", fmt.Errorf("make root: %w", err)
	}
	dir = r.dir(id)
	// The container's root must be able to pass through to the exec fifo, and nothing else.
	err = os.Mkdir(dir, 0o711)
	if errors.Is(err, fs.ErrExist) {
		return "", ErrExists
	}
	if err != nil {
		return "", fmt.Errorf("make state directory: %w", err)
	}
	return dir, nil
}

// validateID refuses what could not be, or should not be, a file's name.
func validateID(id string) error {
	valid := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_+-.", c)
	}
	if id == "" || id == "." || id == ".." || strings.ContainsFunc(id, func(c rune) bool { return !valid(c) }) {
		return fmt.Errorf("%w: %q", ErrInvalidID, id)
	}
	const longest = 255 // NAME_MAX
	if len(id) > longest {
		return fmt.Errorf("%w: it has %d bytes, more than the %d of a file's name", ErrInvalidID, len(id), longest)
	}
	return nil
}

// Init is the program that becomes a container's process, up to its execve. A program that uses this package calls it
// first of all when its first argument is "init". It never returns.
func Init() { launch.InitMain() }
