// Package rootfs makes a container's root: it runs in the container's init, in its new mount namespace.
//
//  1. [Mount]: cut the namespace off from the host's, bind the root on itself, mount everything into it, make devices
//  2. the caller lets the hooks run that need the old root still there
//  3. [Root.Enter]: pivot_root (or move the root) and forget the old one
//  4. [Root.Finish]: what had to be writable until now becomes read-only; [Protect] masks paths
//
// Mounts are made detached by the mount API of Linux 5.2 and 5.12 and attached by descriptor, so no path of the image
// is resolved twice and no symlink in it can lead a mount out.
package rootfs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Options say what root to make.
type Options struct {
	Spec        *specs.Spec
	Rootfs      string // absolute
	Bundle      string // absolute
	NoPivot     bool
	UserNS      bool   // the container has a user namespace
	Rootless    bool   // the runtime is not root
	CgroupPath2 string // the container's directory on cgroup v2; "" on v1
	// OpenSource asks the runtime, outside, for the source of Spec.Mounts[index] as a detached mount, its ids mapped.
	OpenSource func(index int) (*os.File, error)
	// MapSource asks it to map the ids of that source, which is open already and detached.
	MapSource func(index int, mnt *os.File) error
	Log       *slog.Logger
}

// Root is a root that is mounted but maybe not yet entered.
type Root struct {
	o            *Options
	tree         *tree
	readOnlyLate []*os.File // mounts that become read-only in Finish
	ownMounts    bool       // the process has a mount namespace for the container
}

// Mount does the first step. Without a mount namespace in the spec nothing is mounted: the mounts would be the host's.
func Mount(o *Options) (*Root, error) {
	r := &Root{o: o, ownMounts: HasNamespace(o.Spec, specs.MountNamespace)}
	unix.Umask(0)
	if err := r.open(); err != nil {
		return nil, err
	}
	if !r.ownMounts {
		return r, nil
	}
	if err := r.mountAll(); err != nil {
		return nil, err
	}
	if r.ownsDev() {
		if err := r.makeDev(); err != nil {
			return nil, fmt.Errorf("make /dev: %w", err)
		}
	}
	return r, nil
}

// HasNamespace says that the spec names a namespace of this type, new or by path.
func HasNamespace(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	if spec.Linux == nil {
		return false
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == kind {
			return true
		}
	}
	return false
}

// open cuts the mount namespace off and takes hold of the root.
func (r *Root) open() error {
	dir, err := os.OpenFile(r.o.Rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	if r.ownMounts {
		own, err := r.bindSelf(dir)
		if err := errors.Join(err, dir.Close()); err != nil {
			return err
		}
		dir = own
	}
	r.tree, err = openTree(dir)
	return err
}

// bindSelf makes the root a mount of its own, which pivot_root(2) demands.
func (r *Root) bindSelf(dir *os.File) (*os.File, error) {
	kind, flags := r.propagation()
	if err := unix.Mount("", "/", "", kind|flags, ""); err != nil {
		return nil, fmt.Errorf("set propagation of the host's mounts: %w", err)
	}
	path, err := filepath.EvalSymlinks(r.o.Rootfs)
	if err != nil {
		return nil, fmt.Errorf("resolve root: %w", err)
	}
	// A shared parent would carry our bind out to the host, and pivot_root(2) refuses it.
	parentKind := uintptr(unix.MS_PRIVATE)
	if kind == unix.MS_SLAVE {
		parentKind = unix.MS_SLAVE
	}
	for at := path; ; at = filepath.Dir(at) {
		err := unix.Mount("", at, "", parentKind, "")
		if err == nil {
			break
		}
		if err != unix.EINVAL || at == "/" { // EINVAL: no mount point, so its parent is asked
			return nil, fmt.Errorf("unshare the mount of %s: %w", at, err)
		}
	}
	mnt, err := clone(int(dir.Fd()), "", true)
	if err != nil {
		return nil, err
	}
	if err := attach(mnt, dir); err != nil {
		return nil, errors.Join(fmt.Errorf("bind root on itself: %w", err), mnt.Close())
	}
	return mnt, nil
}

// propagation is how mounts travel between host and container: only inwards unless the spec says otherwise.
func (r *Root) propagation() (kind, flags uintptr) {
	name := r.o.Spec.Linux.RootfsPropagation
	base, recursive := strings.CutPrefix(name, "r")
	kind, ok := uintptr(propagations()[base]), has(propagations(), base)
	if !ok {
		return unix.MS_SLAVE, unix.MS_REC
	}
	if recursive {
		flags = unix.MS_REC
	}
	return kind, flags
}

// Dir is the root as a descriptor, for a process that wants to stand in it before it is entered.
func (r *Root) Dir() *os.File { return r.tree.dir }

// Finish makes read-only what had to be writable while the root was made. To be called inside.
func (r *Root) Finish() error {
	for _, mnt := range r.readOnlyLate {
		if err := setAttributes(mnt, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
			return fmt.Errorf("make %s read-only: %w", mnt.Name(), err)
		}
		_ = mnt.Close()
	}
	r.readOnlyLate = nil
	if r.o.Spec.Root.Readonly && r.ownMounts {
		if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("make root read-only: %w", err)
		}
	}
	return nil
}
