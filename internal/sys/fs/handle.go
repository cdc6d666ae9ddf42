package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Handle is a file handle of name_to_handle_at in a form that compares and can be a map's key: four bytes of type, then
// the handle. fanotify reports the same bytes.
type Handle string

// MakeHandle makes a Handle of its parts.
func MakeHandle(kind int32, bytes []byte) Handle {
	b := binary.NativeEndian.AppendUint32(make([]byte, 0, 4+len(bytes)), uint32(kind))
	return Handle(append(b, bytes...))
}

// Handle returns the handle of the entry name itself; "" is the directory. EOPNOTSUPP where the filesystem has none.
func (d *Dir) Handle(name string) (Handle, error) {
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	h, _, err := unix.NameToHandleAt(d.fd, name, flags)
	if err != nil {
		return "", wrap("get handle of", name, err)
	}
	return MakeHandle(h.Type(), h.Bytes()), nil
}

// HandleOf returns the handle of what path leads to, following symlinks and the links of /proc.
func HandleOf(path string) (Handle, error) {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return "", wrap("get handle of", path, err)
	}
	return MakeHandle(h.Type(), h.Bytes()), nil
}

// maxHandleWait is the longest pause before a handle is opened again; all pauses together are below twice of it.
const maxHandleWait = 50 * time.Millisecond

// ErrOutside says that an inode has no name beneath the directory.
var ErrOutside = errors.New("not beneath the root")

// PathOf returns the path beneath d, at this moment, of the inode that a handle of d's filesystem names: "." for d itself,
// ErrOutside (with the Stat all the same) when it lies elsewhere, ESTALE when it is gone. Any other error (no descriptor left, no
// /proc) says nothing of where it is. Needs CAP_DAC_READ_SEARCH. What the kernel calls the inode is only a hint (it may lie
// outside the mount, or be deleted); it counts once the path leads back to the same inode.
func (d *Dir) PathOf(h Handle) (string, Stat, error) {
	if len(h) < 4 {
		return "", Stat{}, fmt.Errorf("open handle: %w", unix.EINVAL)
	}
	fd, err := d.openHandle(h)
	if err != nil {
		return "", Stat{}, fmt.Errorf("open handle: %w", err)
	}
	defer unix.Close(fd)
	want, err := statx(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return "", Stat{}, fmt.Errorf("stat handle: %w", err)
	}
	root, err := os.Readlink(d.proc)
	if err != nil {
		return "", Stat{}, fmt.Errorf("name root: %w", err)
	}
	full, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", Stat{}, fmt.Errorf("name handle: %w", err)
	}
	rel, err := relative(root, full)
	if err != nil {
		return "", want, err
	}
	if err := d.leadsTo(rel, &want); err != nil {
		return "", want, err
	}
	return rel, want, nil
}

// openHandle asks again where the kernel has no memory: it says so, too, of an inode that is gone while another one is being
// made under its number (iget_locked in fs/inode.c has nothing but NULL to say that it found I_CREATING). That takes
// microseconds, or as long as its maker is kept from a processor.
func (d *Dir) openHandle(h Handle) (int, error) {
	kind := int32(binary.NativeEndian.Uint32([]byte(h[:4])))
	for wait := 50 * time.Microsecond; ; wait *= 2 {
		fd, err := unix.OpenByHandleAt(d.fd, unix.NewFileHandle(kind, []byte(h[4:])), unix.O_PATH|unix.O_CLOEXEC)
		if !errors.Is(err, unix.ENOMEM) || wait > maxHandleWait {
			return fd, err
		}
		time.Sleep(wait)
	}
}

// Find returns the path beneath d of an inode, given a text that ends in that path (what /proc/PID/fd says of a file in
// another mount namespace). ErrOutside when no end of the text leads to it.
func (d *Dir) Find(text string, want *Stat) (string, error) {
	for rest := strings.TrimLeft(text, "/"); rest != ""; {
		if d.leadsTo(rest, want) == nil {
			return rest, nil
		}
		_, after, _ := strings.Cut(rest, "/")
		rest = strings.TrimLeft(after, "/")
	}
	return "", ErrOutside
}

func (d *Dir) leadsTo(rel string, want *Stat) error {
	fd, err := d.openat2(rel, unix.O_PATH, 0)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV),
		errors.Is(err, unix.ENAMETOOLONG):
		return ErrOutside
	default:
		return err
	}
	defer unix.Close(fd)
	got, err := statx(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("stat %s: %w", rel, err)
	}
	if !got.Same(want) {
		return ErrOutside
	}
	return nil
}

func relative(root, full string) (string, error) {
	switch {
	case full == root:
		return ".", nil
	case root == "/":
		return strings.TrimPrefix(full, "/"), nil
	case strings.HasPrefix(full, root+"/"):
		return full[len(root)+1:], nil
	}
	return "", ErrOutside
}
