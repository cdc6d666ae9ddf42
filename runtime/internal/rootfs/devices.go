package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Devices lists the nodes a container gets: the spec's, and those that every container has unless the spec defines
// them itself.
func Devices(spec *specs.Spec) []specs.LinuxDevice {
	var list []specs.LinuxDevice
	seen := map[string]bool{}
	if spec.Linux != nil {
		list = append(list, spec.Linux.Devices...)
	}
	for _, d := range list {
		seen[filepath.Clean(d.Path)] = true
	}
	for _, d := range []specs.LinuxDevice{
		{Path: "/dev/null", Major: 1, Minor: 3},
		{Path: "/dev/zero", Major: 1, Minor: 5},
		{Path: "/dev/full", Major: 1, Minor: 7},
		{Path: "/dev/random", Major: 1, Minor: 8},
		{Path: "/dev/urandom", Major: 1, Minor: 9},
		{Path: "/dev/tty", Major: 5, Minor: 0},
	} {
		if !seen[d.Path] {
			d.Type = "c"
			list = append(list, d)
		}
	}
	return list
}

// ownsDev says that /dev is the container's own; a bind of another one is left as it is.
func (r *Root) ownsDev() bool {
	for i := range r.o.Spec.Mounts {
		m, err := parseMount(&r.o.Spec.Mounts[i], r.o.Bundle)
		if err == nil && m.bind && m.dest == "/dev" {
			return false
		}
	}
	return true
}

func (r *Root) makeDev() error {
	for _, d := range Devices(r.o.Spec) {
		if filepath.Clean(d.Path) == "/dev/ptmx" {
			continue // below, as a link into the container's own devpts
		}
		if err := r.makeDevice(&d); err != nil {
			return fmt.Errorf("make device %s: %w", d.Path, err)
		}
	}
	if err := r.makePtmx(); err != nil {
		return fmt.Errorf("make /dev/ptmx: %w", err)
	}
	links := [][2]string{
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	}
	if _, err := os.Stat("/proc/kcore"); err == nil {
		links = append(links, [2]string{"/proc/kcore", "/dev/core"})
	}
	for _, link := range links {
		if err := r.tree.symlink(link[0], link[1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *Root) makePtmx() error {
	dir, name, err := r.tree.parent("/dev/ptmx")
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && err != unix.ENOENT {
		return err
	}
	return unix.Symlinkat("pts/ptmx", int(dir.Fd()), name)
}

// makeDevice makes the node, or binds the host's where the kernel does not let a user namespace make one.
func (r *Root) makeDevice(d *specs.LinuxDevice) error {
	dir, name, err := r.tree.parent(d.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if r.o.UserNS {
		return bindDevice(dir, name, d)
	}
	err = mknod(dir, name, d)
	if errors.Is(err, os.ErrPermission) {
		return bindDevice(dir, name, d)
	}
	return err
}

func mknod(dir *os.File, name string, d *specs.LinuxDevice) error {
	kind, err := deviceKind(d.Type)
	if err != nil {
		return err
	}
	perm := uint32(0o666)
	if d.FileMode != nil {
		perm = uint32(d.FileMode.Perm())
	}
	dev := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	if kind == unix.S_IFIFO {
		dev = 0
	}
	err = unix.Mknodat(int(dir.Fd()), name, kind|perm, int(dev))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("mknodat", err)
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind || st.Rdev != dev {
		return errors.New("the new node was replaced by another one")
	}
	// The rights were not cut by a umask (it is 0), but a node in a directory with setgid or ACLs gets others.
	if err := unix.Fchmodat(int(dir.Fd()), name, perm, 0); err != nil {
		return os.NewSyscallError("fchmodat", err)
	}
	uid, gid := 0, 0
	if d.UID != nil {
		uid = int(*d.UID)
	}
	if d.GID != nil {
		gid = int(*d.GID)
	}
	return os.NewSyscallError("fchownat", unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH))
}

func deviceKind(name string) (uint32, error) {
	switch name {
	case "c", "u":
		return unix.S_IFCHR, nil
	case "b":
		return unix.S_IFBLK, nil
	case "p":
		return unix.S_IFIFO, nil
	}
	return 0, fmt.Errorf("unknown device type %q", name)
}

func bindDevice(dir *os.File, name string, d *specs.LinuxDevice) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "create", Path: d.Path, Err: err}
	}
	target := os.NewFile(uintptr(fd), d.Path)
	defer target.Close()
	mnt, err := clone(unix.AT_FDCWD, d.Path, false)
	if err != nil {
		return err
	}
	defer mnt.Close()
	return attach(mnt, target)
}

// reopenNull makes those of 0, 1 and 2 that are the host's /dev/null the container's, so that no descriptor of a mount
// outside stays behind. To be called inside.
func reopenNull() error {
	null, err := openNull(unix.O_RDWR)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || !isNull(&st) {
			continue
		}
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

// openNull opens the container's /dev/null and makes sure that it is one: an image may bring something else.
func openNull(flags int) (*os.File, error) {
	null, err := os.OpenFile("/dev/null", flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(null.Fd()), &st); err != nil || !isNull(&st) {
		return nil, errors.Join(errors.New("the container's /dev/null is something else"), err, null.Close())
	}
	return null, nil
}

func isNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}
