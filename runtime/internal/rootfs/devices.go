package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/cyphar/filepath-securejoin/pathrs-lite/procfs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// errOccupied is a device whose name belongs to something else already.
var errOccupied = errors.New("something else is there in its place")

// Devices lists the nodes a container gets: the spec's, and those that every container has unless the spec defines
// them itself.
func Devices(spec *specs.Spec) []specs.LinuxDevice {
	return append(ownDevices(spec), defaultDevices(spec)...)
}

func ownDevices(spec *specs.Spec) []specs.LinuxDevice {
	if spec.Linux == nil {
		return nil
	}
	return slices.Clone(spec.Linux.Devices)
}

func defaultDevices(spec *specs.Spec) []specs.LinuxDevice {
	var list []specs.LinuxDevice
	seen := map[string]bool{}
	for _, d := range ownDevices(spec) {
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
	for _, d := range ownDevices(r.o.Spec) {
		if filepath.Clean(d.Path) == "/dev/ptmx" {
			continue // below, as a link into the container's own devpts
		}
		if err := r.makeDevice(&d); err != nil {
			return fmt.Errorf("make device %s: %w", d.Path, err)
		}
	}
	for _, d := range defaultDevices(r.o.Spec) {
		if r.mountsOn(d.Path) {
			continue // the user's own choice, as /dev/urandom for /dev/random
		}
		// Nobody asked for these: what the image or a volume has in the place stays.
		if err := r.makeDevice(&d); err != nil && !errors.Is(err, errOccupied) {
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

// mountsOn says that the spec mounts something on this very path.
func (r *Root) mountsOn(path string) bool {
	return slices.ContainsFunc(r.o.Spec.Mounts, func(m specs.Mount) bool { return filepath.Clean("/"+m.Destination) == path })
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

// mknod makes the node; one that is there already must be the same, as the specification demands.
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
	existed := errors.Is(err, unix.EEXIST)
	if err != nil && !existed {
		return os.NewSyscallError("mknodat", err)
	}
	// The directory may be a volume, where others put a link in the node's place at any time: from here on the name is
	// not used again.
	node, err := openAt(dir, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer node.Close()
	same, err := isDevice(node, kind, dev)
	switch {
	case err != nil:
		return err
	case !same:
		return errOccupied
	case existed:
		return nil
	}
	// The rights were not cut by a umask (it is 0), but a node in a directory with setgid or ACLs gets others.
	if err := chmod(node, perm); err != nil {
		return err
	}
	uid, gid := 0, 0
	if d.UID != nil {
		uid = int(*d.UID)
	}
	if d.GID != nil {
		gid = int(*d.GID)
	}
	return os.NewSyscallError("fchownat", unix.Fchownat(int(node.Fd()), "", uid, gid, unix.AT_EMPTY_PATH))
}

func isDevice(node *os.File, kind uint32, dev uint64) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(node.Fd()), &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	return st.Mode&unix.S_IFMT == kind && st.Rdev == dev, nil
}

// chmod changes what an O_PATH handle names. Linux 6.6 does it by itself (fchmodat2), before that it takes the link in
// our directory of descriptors.
func chmod(file *os.File, perm uint32) error {
	err := unix.Fchmodat(int(file.Fd()), "", perm, unix.AT_EMPTY_PATH)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, errors.ErrUnsupported) { // ENOSYS or EOPNOTSUPP
		return os.NewSyscallError("fchmodat2", err)
	}
	proc, err := procfs.OpenProcRoot()
	if err != nil {
		return fmt.Errorf("open procfs: %w", err)
	}
	defer proc.Close()
	dir, done, err := proc.OpenThreadSelf("fd")
	if err != nil {
		return fmt.Errorf("open own descriptors: %w", err)
	}
	defer done()
	defer dir.Close()
	return os.NewSyscallError("fchmodat", unix.Fchmodat(int(dir.Fd()), strconv.Itoa(int(file.Fd())), perm, 0))
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

// bindDevice binds the host's node of the same name, which must be the device that is meant.
func bindDevice(dir *os.File, name string, d *specs.LinuxDevice) error {
	mnt, err := clone(unix.AT_FDCWD, d.Path, false)
	if err != nil {
		return err
	}
	defer mnt.Close()
	kind, err := deviceKind(d.Type)
	if err != nil {
		return err
	}
	if kind != unix.S_IFIFO {
		same, err := isDevice(mnt, kind, unix.Mkdev(uint32(d.Major), uint32(d.Minor)))
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("bind the host's %s: it is another device", d.Path)
		}
	}
	return cover(mnt, dir, name)
}

// BindConsole puts a terminal on /dev/console. To be called inside.
func BindConsole(terminal *os.File) error {
	dir, err := os.OpenFile("/dev", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	mnt, err := clone(int(terminal.Fd()), "", false)
	if err != nil {
		return err
	}
	defer mnt.Close()
	return cover(mnt, dir, "console")
}

// cover attaches the mount of a file to name in dir, where an empty file is made if there is none. What is there is not
// opened: a fifo would hold us up for ever. A link is refused, wherever it leads.
func cover(mnt, dir *os.File, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
	if errors.Is(err, unix.EEXIST) {
		fd, err = unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return &os.PathError{Op: "open mount point", Path: name, Err: err}
	}
	point := os.NewFile(uintptr(fd), name)
	defer point.Close()
	info, err := point.Stat()
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		return &os.PathError{Op: "open mount point", Path: name, Err: unix.ELOOP}
	}
	return attach(mnt, point)
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

// openNull opens the container's /dev/null and makes sure that it is one before it really opens it: an image may bring
// something else, such as a link to a file of /proc that a mask would then make writable (CVE-2025-31133).
func openNull(flags int) (*os.File, error) {
	null, err := os.OpenFile("/dev/null", unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(null.Fd()), &st); err != nil || !isNull(&st) {
		return nil, errors.Join(errors.New("the container's /dev/null is something else"), err, null.Close())
	}
	if flags == unix.O_PATH {
		return null, nil
	}
	defer null.Close()
	return pathrs.Reopen(null, flags)
}

func isNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}
