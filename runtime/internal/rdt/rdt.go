// Package rdt is a container's group of the kernel's resctrl filesystem, by which Intel RDT (and its kin of other makers)
// shares cache and memory bandwidth out: made from its spec, entered, measured and removed.
//
//	ROOT/                     the filesystem, mounted by the administrator
//	ROOT/info/                what the processor can do
//	ROOT/CLOS/                a class of service: closID of the spec, or the container's id
//	ROOT/CLOS/schemata        its shares
//	ROOT/CLOS/tasks           its threads; children inherit
//	ROOT/CLOS/mon_groups/ID/  the container's own counters (enableMonitoring)
//
// Documentation/filesystems/resctrl.rst of the kernel describes the files.
package rdt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// errNotMounted: without the filesystem there is no group. Mount it.
var errNotMounted = errors.New("resctrl is not mounted (mount -t resctrl resctrl /sys/fs/resctrl)")

// Place is what has to be kept of a group to find it again.
type Place struct {
	Path  string // absolute; "" for no group
	Mon   string // the container's monitoring group, "" without one
	Owned bool   // made by us: it goes with the container
}

// Group is one container's group. Make is called once and before anything else; the rest is safe for concurrent use.
type Group struct {
	root         string
	place        Place
	spec         *specs.LinuxIntelRdt
	mkdir, rmdir func(path string) error // the kernel fills and empties the directories of the filesystem
}

// Root is where the filesystem is mounted, "" when it is not, or when the machine has none.
func Root() string {
	const usual = "/sys/fs/resctrl"
	var st unix.Statfs_t
	if err := unix.Statfs(usual, &st); err != nil {
		return "" // the kernel makes the directory where the processor has the feature
	}
	if st.Type == unix.RDTGROUP_SUPER_MAGIC {
		return usual
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("resctrl"))
	if err != nil || len(mounts) == 0 {
		return ""
	}
	return mounts[0].Mountpoint
}

// HasCAT tells whether the filesystem at root shares out the L3 cache.
func HasCAT(root string) bool { return exists(root, "info/L3") }

// HasMBA tells whether the filesystem at root shares out memory bandwidth.
func HasMBA(root string) bool { return exists(root, "info/MB") }

func exists(root, name string) bool {
	if root == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(root, name))
	return err == nil
}

// Check says why no group can be made of the spec on a machine with the filesystem at root. nil is fine.
func Check(spec *specs.LinuxIntelRdt, root string) error {
	switch {
	case spec == nil:
		return nil
	case root == "":
		return errors.New("intelRdt is specified in config, but Intel RDT is not enabled")
	case spec.ClosID == "." || spec.ClosID == ".." || spec.ClosID == "info" || spec.ClosID == "mon_groups" || spec.ClosID == "mon_data" ||
		spec.ClosID != "/" && strings.Contains(spec.ClosID, "/"):
		return fmt.Errorf("invalid intelRdt.ClosID %q", spec.ClosID)
	case spec.L3CacheSchema != "" && !HasCAT(root):
		return errors.New("intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled")
	case spec.MemBwSchema != "" && !HasMBA(root):
		return errors.New("intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled")
	case spec.EnableMonitoring && !exists(root, "info/L3_MON"):
		return errors.New("intelRdt.enableMonitoring is specified in config, but Intel RDT monitoring is not enabled")
	}
	for _, line := range append([]string{spec.L3CacheSchema, spec.MemBwSchema}, spec.Schemata...) {
		if strings.ContainsAny(line, "\n\x00") {
			return fmt.Errorf("invalid intelRdt schema %q: more than one line", line)
		}
	}
	return nil
}

// New is the group of a new container; Make makes it. A closID of "/" is the root of the filesystem.
func New(root, id string, spec *specs.LinuxIntelRdt) *Group {
	name := spec.ClosID
	if name == "" {
		name = id
	}
	place := Place{Path: filepath.Join(root, name)}
	if spec.EnableMonitoring {
		place.Mon = filepath.Join(place.Path, "mon_groups", id)
	}
	return Open(root, place, spec)
}

// Open is a group that was made before. With the filesystem unmounted, a root of "", it can only be removed.
func Open(root string, place Place, spec *specs.LinuxIntelRdt) *Group {
	return &Group{root: root, place: place, spec: spec, mkdir: func(path string) error { return os.Mkdir(path, 0o755) }, rmdir: rmdir}
}

// rmdir removes a directory whose files are the kernel's.
func rmdir(path string) error {
	if err := unix.Rmdir(path); err != nil {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

// Place is what Open needs.
func (g *Group) Place() Place { return g.place }

// Make makes the group with its shares, and the monitoring group. One that is there already is joined, and is not ours;
// one that only closID names must be there. When it fails nothing is left.
func (g *Group) Make() (err error) {
	if g.root == "" {
		return errNotMounted
	}
	shares := schemata(g.spec)
	if g.spec.ClosID != "" && shares == "" {
		if _, err := os.Stat(g.place.Path); err != nil {
			return fmt.Errorf("clos dir not accessible (must be pre-created when schemata, l3CacheSchema and memBwSchema are empty): %w", err)
		}
	}
	made := true
	switch err := g.mkdir(g.place.Path); {
	case errors.Is(err, fs.ErrExist):
		made = false
	case err != nil:
		return g.explain(fmt.Errorf("make resctrl group: %w", err))
	}
	defer func() {
		if err != nil && made { // a named one too: nobody can have joined what never had its shares
			err = errors.Join(err, g.rmdir(g.place.Path))
		}
	}()
	if err := g.write("schemata", shares); err != nil {
		return err
	}
	if g.place.Mon != "" {
		if err := g.mkdir(g.place.Mon); err != nil && !errors.Is(err, fs.ErrExist) {
			return g.explain(fmt.Errorf("make resctrl monitoring group: %w", err))
		}
	}
	g.place.Owned = made && g.spec.ClosID == "" // a named one is shared: others may join
	return nil
}

// schemata are the lines to write: those that stand for themselves come last and win.
func schemata(spec *specs.LinuxIntelRdt) string {
	var b strings.Builder
	for _, line := range append([]string{spec.L3CacheSchema, spec.MemBwSchema}, spec.Schemata...) {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// Add moves a thread into the group; what it starts from then on is in it too. fs.ErrNotExist when the group is gone.
func (g *Group) Add(tid int) error {
	for _, dir := range []string{g.place.Path, g.place.Mon} { // in this order: a change of the class leaves its monitors
		if dir == "" {
			continue
		}
		if err := writeFile(filepath.Join(dir, "tasks"), strconv.Itoa(tid)+"\n"); err != nil {
			return g.explain(fmt.Errorf("add thread %d to resctrl group: %w", tid, err))
		}
	}
	return nil
}

// AddProcess moves every thread of a process into the group. The process must not make threads meanwhile: it is stopped. One
// that has ended is no error.
func (g *Group) AddProcess(pid int) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list threads of process %d: %w", pid, err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return fmt.Errorf("list threads of process %d: %w", pid, err)
		}
		if err := g.Add(tid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// Shares are the group's present schemata, for SetBack.
func (g *Group) Shares() (string, error) {
	data, err := os.ReadFile(filepath.Join(g.place.Path, "schemata"))
	if err != nil {
		return "", fmt.Errorf("read resctrl group: %w", err)
	}
	return string(data), nil
}

// Set changes the shares. When it fails some may be changed.
func (g *Group) Set(spec *specs.LinuxIntelRdt) error { return g.write("schemata", schemata(spec)) }

// SetBack sets the shares to what Shares returned.
func (g *Group) SetBack(shares string) error { return g.write("schemata", shares) }

func (g *Group) write(name, text string) error {
	if text == "" {
		return nil
	}
	if err := writeFile(filepath.Join(g.place.Path, name), text); err != nil {
		return g.explain(fmt.Errorf("write %q to resctrl group: %w", text, err))
	}
	return nil
}

// writeFile makes no file: all there are, the kernel has made.
func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// explain adds what the filesystem says about its last refusal.
func (g *Group) explain(err error) error {
	if g.root == "" {
		return err
	}
	status, readErr := os.ReadFile(filepath.Join(g.root, "info", "last_cmd_status"))
	if readErr != nil {
		return err
	}
	return fmt.Errorf("%w, last_cmd_status: %s", err, strings.TrimSpace(string(status)))
}

// Remove removes what is the container's own: its group, or its monitoring group in somebody else's. Idempotent.
func (g *Group) Remove() error {
	dir := g.place.Mon
	if g.place.Owned {
		dir = g.place.Path // takes its monitoring groups along
	}
	if dir == "" {
		return nil
	}
	if err := g.rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove resctrl group: %w", err)
	}
	return nil
}
