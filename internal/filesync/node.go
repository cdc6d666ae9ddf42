package filesync

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// node makes a directory, symlink, device, fifo or socket, or gives the one that is there its attributes.
func (a *applier) node(o *operation) error {
	m := &o.meta
	if o.path == rootPath {
		return a.rootNode(m)
	}
	dir, name, err := a.enter(o.path)
	if err != nil {
		return a.lost(o.path, err)
	}
	st, err := dir.Stat(name)
	exists := err == nil
	if err != nil && !vanished(err) {
		return err
	}
	if m.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return a.directory(dir, name, o, exists, &st)
	}
	if exists && st.Type() == m.Mode&syscall.S_IFMT && st.Rdev == m.Rdev {
		if !st.IsSymlink() {
			return a.attributes(dir, name, m, &st)
		}
		if target, err := dir.Readlink(name); err == nil && target == m.Target {
			return a.attributes(dir, name, m, &st)
		}
	}
	temp := a.tempName()
	if err := makeLeaf(dir, temp, m); err != nil {
		return err
	}
	if err := a.attributes(dir, temp, m, nil); err != nil {
		return errors.Join(err, dir.Unlink(temp))
	}
	return place(dir, temp, name)
}

func makeLeaf(dir *fs.Dir, temp string, m *meta) error {
	if m.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		return dir.Symlink(m.Target, temp)
	}
	return dir.Mknod(temp, m.Mode&^0o7777|0o600, m.Rdev)
}

func (a *applier) directory(dir *fs.Dir, name string, o *operation, exists bool, st *fs.Stat) error {
	if exists && (o.flag || !st.IsDir()) {
		if err := dir.RemoveAll(name); err != nil {
			return err
		}
		exists = false
	}
	if exists {
		return a.attributes(dir, name, &o.meta, st)
	}
	if err := dir.Mkdir(name); err != nil {
		return err
	}
	return a.attributes(dir, name, &o.meta, nil)
}

// rootNode gives the root its attributes. Its time is set when the operations are done with it.
func (a *applier) rootNode(m *meta) error {
	if err := a.leave(rootPath); err != nil {
		return err
	}
	dir, _, err := a.enter("x") // any name: the root is its directory
	if err != nil {
		return err
	}
	st, err := dir.Stat("")
	if err != nil {
		return err
	}
	a.stack[0].mtime = m.Mtime
	return a.attributes(dir, ".", m, &st)
}

// attributes makes everything but the content as it shall be. st is how it is now, nil when it was just made. The order
// matters: chown drops set-id bits and capabilities, chmod and an ACL share the group's bits, and every one of them but the
// time itself leaves the modification time alone.
func (a *applier) attributes(dir *fs.Dir, name string, m *meta, st *fs.Stat) error {
	if err := a.rights(dir, name, m, st); err != nil {
		return err
	}
	if err := a.xattrs(dir, name, m); err != nil {
		return err
	}
	if st == nil || st.Mtime != m.Mtime {
		return dir.SetMtime(name, m.Mtime)
	}
	return nil
}

// rights sets owner and mode.
func (a *applier) rights(dir *fs.Dir, name string, m *meta, st *fs.Stat) error {
	chowned := st == nil || st.UID != m.UID || st.GID != m.GID
	if chowned {
		if err := dir.Chown(name, m.UID, m.GID); err != nil {
			return err
		}
	}
	if m.Mode&syscall.S_IFMT != syscall.S_IFLNK && (chowned || st.Mode&0o7777 != m.Mode&0o7777) {
		return dir.Chmod(name, m.Mode)
	}
	return nil
}

// fileAttributes is attributes for a file that was just made and is still open: fewer paths to resolve.
func (a *applier) fileAttributes(dir *fs.Dir, name string, f *os.File, m *meta) error {
	if err := f.Chown(int(m.UID), int(m.GID)); err != nil {
		return err
	}
	if err := fs.ChmodFile(f, m.Mode); err != nil {
		return err
	}
	if err := a.xattrs(dir, name, m); err != nil {
		return err
	}
	return dir.SetMtime(name, m.Mtime)
}

func (a *applier) xattrs(dir *fs.Dir, name string, m *meta) error {
	present, err := dir.Xattrs(name)
	if err != nil {
		return err
	}
	for _, attr := range present {
		if carried(attr) && m.xattr(attr) == nil {
			if err := a.tolerate(attr, dir.RemoveXattr(name, attr)); err != nil {
				return err
			}
		}
	}
	for i := range m.Xattrs {
		x := &m.Xattrs[i]
		if len(present) > 0 {
			if v, err := dir.Xattr(name, x.Name); err == nil && bytes.Equal(v, x.Value) {
				continue
			}
		}
		if err := a.tolerate(x.Name, dir.SetXattr(name, x.Name, x.Value)); err != nil {
			return err
		}
	}
	return nil
}

// tolerate lets a file's SELinux label go when this kernel's policy does not take it; the runtime labels what it mounts.
func (a *applier) tolerate(attr string, err error) error {
	if err == nil || errors.Is(err, syscall.ENODATA) {
		return nil
	}
	if strings.HasPrefix(attr, "security.selinux") {
		a.stats.Dropped++
		return nil
	}
	return err
}

func (m *meta) xattr(name string) *xattr {
	for i := range m.Xattrs {
		if m.Xattrs[i].Name == name {
			return &m.Xattrs[i]
		}
	}
	return nil
}
