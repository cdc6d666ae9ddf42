package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/cyphar/filepath-securejoin/pathrs-lite/procfs"
	"golang.org/x/sys/unix"
)

// maxLinks is how many symlinks the kernel follows in one path (MAXSYMLINKS, path_resolution(7)).
const maxLinks = 40

// cloneSource makes a detached copy of what a bind mount shows. From the container's root on no link is followed out of
// it, whoever asks: he who wrote the image, or shares a volume, does not choose what of the host appears in the container.
func (m *mount) cloneSource(root *os.File, recursive bool) (*os.File, error) {
	source, err := openInRoot(m.source, root)
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", m.source, err)
	}
	if source == nil {
		return clone(unix.AT_FDCWD, m.source, recursive)
	}
	defer source.Close()
	return clone(int(source.Fd()), "", recursive)
}

// resolveSource is the source as a path for somebody else to open, without links where it lies in the root.
func (m *mount) resolveSource(rootfs string) (string, error) {
	if rootfs == "" {
		return m.source, nil
	}
	root, err := os.OpenFile(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	source, err := openInRoot(m.source, root)
	if err != nil {
		return "", fmt.Errorf("open source %s: %w", m.source, err)
	}
	if source == nil {
		return m.source, nil
	}
	defer source.Close()
	return procfs.ProcSelfFdReadlink(source)
}

// openInRoot opens what is at path, absolute and clean, when that leads through the root, by which name ever: resolved
// beneath the root. It returns nil for a path that does not.
func openInRoot(path string, root *os.File) (*os.File, error) {
	at, rest, err := findRoot(path, root)
	if err != nil || at == "" {
		return nil, err
	}
	// By its path: what is mounted on this name of the root is to be seen, which may be more than on another one.
	dir, err := os.OpenFile(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return pathrs.OpenatInRoot(dir, "/"+rest)
}

// findRoot walks a path until it comes to the root: at is that place, without links, and rest what is left of the path.
// The links on the way are the host's own, which are followed. at is "" when the path does not lead there.
func findRoot(path string, root *os.File) (at, rest string, err error) {
	want, err := root.Stat()
	if err != nil {
		return "", "", err
	}
	at = "/"
	left := strings.Split(path, "/")
	for links := 0; len(left) > 0; {
		next := filepath.Join(at, left[0])
		left = left[1:]
		info, err := os.Lstat(next)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return "", "", nil // or a link of /proc, whose text names no file: the kernel knows where it leads
		}
		if err != nil {
			return "", "", err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			at = next
			if os.SameFile(info, want) && (len(left) == 0 || left[0] != "..") {
				return at, strings.Join(left, "/"), nil
			}
			continue
		}
		if links++; links > maxLinks {
			return "", "", &os.PathError{Op: "follow links", Path: path, Err: unix.ELOOP}
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return "", "", nil
}
