package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// view is the root as it is seen from inside. The kernel's own trees are held by descriptor: where containers share a
// root, another one can put a directory of its own in the place of /proc just when a mask is to be laid over a file in
// it, and take it away later.
type view struct {
	root  *os.File
	trees []kernelTree // later ones cover earlier ones
}

type kernelTree struct {
	at  string // where the spec mounts it
	dir *os.File
}

// openView opens the root and what the spec mounts in it of procfs and sysfs.
func openView(spec *specs.Spec) (_ *view, err error) {
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	v := &view{root: root}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	mounts, err := kernelTrees(spec)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		dir, err := pathrs.OpenatInRoot(root, m.dest)
		if err != nil {
			return nil, fmt.Errorf("open the mounted %s: %w", m.fstype, err)
		}
		v.trees = append(v.trees, kernelTree{at: m.dest, dir: dir})
		if !isKernelRoot(dir, m.fstype) {
			return nil, fmt.Errorf("%s is no longer the %s that was mounted there", m.dest, m.fstype)
		}
	}
	return v, nil
}

// kernelTrees lists what the spec mounts of procfs and sysfs, without what a later mount of it hides.
func kernelTrees(spec *specs.Spec) ([]*mount, error) {
	var trees []*mount
	for i := range spec.Mounts {
		m, err := parseMount(&spec.Mounts[i], "/")
		if err != nil {
			return nil, err
		}
		trees = slices.DeleteFunc(trees, func(tree *mount) bool {
			return tree.dest == m.dest || below(tree.dest, []string{m.dest})
		})
		if m.kernelTree() {
			trees = append(trees, m)
		}
	}
	return trees, nil
}

func (v *view) close() {
	_ = v.root.Close()
	for _, tree := range v.trees {
		_ = tree.dir.Close()
	}
}

// open returns nil without an error for a path that is not there: an image need not have what others hide. Links are
// followed, but none of those that the kernel makes for descriptors.
func (v *view) open(path string) (*os.File, error) {
	path = filepath.Clean("/" + path)
	dir, rest := v.root, path
	for _, tree := range v.trees {
		if inTree, ok := strings.CutPrefix(path, tree.at+"/"); ok {
			dir, rest = tree.dir, inTree
		}
	}
	f, err := pathrs.OpenatInRoot(dir, rest)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	return f, err
}

func isKernelRoot(dir *os.File, fstype string) bool {
	if fstype == "proc" {
		return isProcRoot(dir)
	}
	var fs unix.Statfs_t
	return unix.Fstatfs(int(dir.Fd()), &fs) == nil && fs.Type == unix.SYSFS_MAGIC
}
