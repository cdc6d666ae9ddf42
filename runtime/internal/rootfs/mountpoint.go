package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/cyphar/filepath-securejoin/pathrs-lite/procfs"
	"golang.org/x/sys/unix"
)

// tree is a container's root directory seen from outside. Every path is resolved beneath it, symlinks included, and
// what is found is held by a descriptor from then on.
type tree struct {
	dir  *os.File // O_PATH
	path string   // where dir is, without symlinks
}

func openTree(dir *os.File) (*tree, error) {
	path, err := procfs.ProcSelfFdReadlink(dir)
	if err != nil {
		return nil, fmt.Errorf("find path of root: %w", err)
	}
	return &tree{dir: dir, path: path}, nil
}

// open returns an O_PATH handle of what is at path.
func (t *tree) open(path string) (*os.File, error) {
	return pathrs.OpenatInRoot(t.dir, path)
}

// mkdirAll makes the directory and its parents, and returns its handle. A link on the way that leads nowhere yet, as an
// image's /var/run to a /run that is to be mounted, is followed by its text and the directory made there.
func (t *tree) mkdirAll(path string) (*os.File, error) {
	dir, err := pathrs.MkdirAllHandle(t.dir, path, 0o755)
	if err == nil {
		return dir, nil
	}
	resolved, joinErr := securejoin.SecureJoin(t.path, path)
	if joinErr != nil {
		return nil, err
	}
	rest, inside := strings.CutPrefix(resolved, strings.TrimSuffix(t.path, "/")+"/")
	if !inside || "/"+rest == filepath.Clean("/"+path) {
		return nil, err
	}
	return pathrs.MkdirAllHandle(t.dir, rest, 0o755)
}

// parent makes the directory that path lies in, and returns its handle and the last name of the path.
func (t *tree) parent(path string) (*os.File, string, error) {
	name := filepath.Base(path)
	if name == "/" || name == "." || name == ".." {
		return nil, "", fmt.Errorf("%q names no file in the container", path)
	}
	dir, err := t.mkdirAll(filepath.Dir(path))
	return dir, name, err
}

// create makes an empty file that a file can be mounted on, at the end of a link that leads nowhere yet if need be.
func (t *tree) create(path string) (*os.File, error) {
	if resolved, err := securejoin.SecureJoin(t.path, path); err == nil {
		if rest, inside := strings.CutPrefix(resolved, strings.TrimSuffix(t.path, "/")+"/"); inside {
			path = "/" + rest // by text; what has become of it since is refused below
		}
	}
	dir, name, err := t.parent(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// symlink makes a link; one that is there already is left alone.
func (t *tree) symlink(target, path string) error {
	dir, name, err := t.parent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Symlinkat(target, int(dir.Fd()), name); err != nil && err != unix.EEXIST {
		return &os.LinkError{Op: "symlink", Old: target, New: path, Err: err}
	}
	return nil
}

// inside returns where in the container a handle is: "/" for the root itself.
func (t *tree) inside(handle *os.File) (string, error) {
	path, err := procfs.ProcSelfFdReadlink(handle)
	if err != nil {
		return "", err
	}
	if path == t.path {
		return "/", nil
	}
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(t.path, "/")+"/")
	if !ok {
		return "", fmt.Errorf("%q is outside of the root %q", path, t.path)
	}
	return "/" + rest, nil
}

// mountPoint opens what m is to be mounted on, and makes it where it does not exist: a file for a file, else a
// directory. source is what a bind mount shows, nil for another one. existed tells whether it was there.
func (t *tree) mountPoint(m *mount, source *os.File) (point *os.File, existed bool, err error) {
	point, err = t.open(m.dest)
	existed = err == nil
	if errors.Is(err, os.ErrNotExist) {
		isDir := true
		if source != nil {
			info, err := source.Stat()
			if err != nil {
				return nil, false, fmt.Errorf("stat source: %w", err)
			}
			isDir = info.IsDir()
		}
		if isDir {
			point, err = t.mkdirAll(m.dest)
		} else {
			point, err = t.create(m.dest)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("make mount point: %w", err)
	}
	if err := t.checkMountPoint(m, source, point); err != nil {
		return nil, false, errors.Join(err, point.Close())
	}
	return point, existed, nil
}

func (t *tree) checkMountPoint(m *mount, source, point *os.File) error {
	where, err := t.inside(point)
	if err != nil {
		return err
	}
	if where == "/" {
		return fmt.Errorf("mount point %q is the root itself", m.dest)
	}
	// A link in the image must not decide where the kernel's own trees appear: masks and sysctls rely on the place.
	if m.kernelTree() && where != m.dest {
		return fmt.Errorf("filesystem %q must be mounted on ordinary directory, %s leads to %s", m.fstype, m.dest, where)
	}
	return checkProc(m, source, where)
}

// checkProc refuses what would hide or fake a part of /proc, which the runtime itself writes to and security modules
// are switched by. The files that lxcfs emulates are allowed.
func checkProc(m *mount, source *os.File, where string) error {
	if where == "/proc" {
		if m.fstype == "proc" && !m.bind || m.bind && isProcRoot(source) {
			return nil
		}
		return fmt.Errorf("%q cannot be mounted because it is not of type proc", where)
	}
	if !strings.HasPrefix(where, "/proc/") {
		return nil
	}
	switch strings.TrimPrefix(where, "/proc/") {
	case "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
		"sys/kernel/ns_last_pid", "sys/crypto/fips_enabled":
		return nil
	}
	return fmt.Errorf("%q cannot be mounted because it is inside /proc", where)
}

// isProcRoot says that the handle is the root of a procfs, which has a fixed inode number (PROC_ROOT_INO): the directory
// of a process is on procfs, too, and looks nothing like it.
func isProcRoot(dir *os.File) bool {
	const rootInode = 1
	var fs unix.Statfs_t
	var st unix.Stat_t
	return unix.Fstatfs(int(dir.Fd()), &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC &&
		unix.Fstat(int(dir.Fd()), &st) == nil && st.Ino == rootInode
}
