package preflight

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// Bind is what the source knows of a bind mount that does not travel: the peer must have the same.
type Bind struct {
	Mount  int     `json:"mount"` // index in the config's mounts
	Mode   uint32  `json:"mode"`
	UID    uint32  `json:"uid"`
	GID    uint32  `json:"gid"`
	Rdev   uint64  `json:"rdev,omitempty"`
	Inode  uint64  `json:"inode"`
	Size   int64   `json:"size"`
	Mtime  fs.Time `json:"mtime"`
	Kind   int64   `json:"kind"` // of its file system
	FsID   uint64  `json:"fsid,omitempty"`
	Digest string  `json:"digest,omitempty"` // of a file's content, or of a directory's names and inodes; empty: too many
	Mark   string  `json:"mark,omitempty"`   // what the source has written there for the peer to find
	// Equal says that another file with the same content will do: a single file that the container may only read.
	Equal bool `json:"equal,omitempty"`
}

// A digest is made of so much at most.
const (
	mostDigested = 64 << 20
	mostNames    = 10_000
)

// ReadBind looks at the source of a bind mount.
func ReadBind(path string) (*Bind, error) {
	st, err := fs.StatPath(path)
	if err != nil {
		return nil, err
	}
	b := &Bind{Mode: st.Mode, UID: st.UID, GID: st.GID, Rdev: st.Rdev, Inode: st.Ino, Size: st.Size, Mtime: st.Mtime}
	if b.Kind, b.FsID, err = fs.Kind(path); err != nil {
		return nil, err
	}
	switch {
	case fs.IsKernels(b.Kind):
	case st.IsRegular() && st.Size <= mostDigested:
		b.Digest, err = digestOfFile(path)
	case st.IsDir():
		b.Digest, err = digestOfNames(path)
	}
	return b, err
}

func digestOfFile(path string) (string, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(file, mostDigested)); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func digestOfNames(path string) (string, error) {
	dir, err := fs.OpenDir(path)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	names, err := dir.Names()
	if err != nil || len(names) > mostNames {
		return "", err
	}
	slices.Sort(names)
	sum := sha256.New()
	for _, name := range names {
		if st, err := dir.Stat(name); err == nil {
			fmt.Fprintf(sum, "%q %d %o\n", name, st.Ino, st.Mode)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// judgeBinds compares the bind mounts that do not travel with what this host, the peer, has.
func (a *Arrival) judgeBinds() Findings {
	var f Findings
	for i, m := range a.Spec.Mounts {
		if !IsBind(m) || a.Travels[i] {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			f.add(Blocker, BindMount, "create it, or move with --volumes copy", "%s, bind-mounted at %s, is not on this host", m.Source, m.Destination)
			continue
		}
		theirs := slices.IndexFunc(a.Binds, func(b Bind) bool { return b.Mount == i })
		if theirs < 0 { // by its name alone it may be anything
			f.add(Blocker, BindMount, "put it back there", "%s, bind-mounted at %s, could not be looked at on the source", m.Source, m.Destination)
			continue
		}
		f = append(f, a.Binds[theirs].judge(m.Source, m.Destination)...)
	}
	return f
}

// judge compares with what this host has at the path.
func (b *Bind) judge(path, destination string) Findings {
	var f Findings
	ours, err := ReadBind(path)
	const mount, install = "mount the same one here, or move with --volumes copy", "make the same one here"
	switch {
	case err != nil:
		f.add(Blocker, BindMount, "", "%s, bind-mounted at %s, cannot be looked at on this host: %v", path, destination, err)
	case Noun(ours.Mode) != Noun(b.Mode):
		f.add(Blocker, BindMount, install, "%s, bind-mounted at %s, is a %s here and a %s at the source", path, destination, Noun(ours.Mode), Noun(b.Mode))
	case fs.IsKernels(b.Kind) || fs.IsKernels(ours.Kind):
		if ours.Kind != b.Kind {
			f.add(Blocker, BindMount, install, "%s, bind-mounted at %s, is of another kind of file system here", path, destination)
		}
	case Noun(b.Mode) == "device":
		if ours.Rdev != b.Rdev || ours.Mode&syscall.S_IFMT != b.Mode&syscall.S_IFMT {
			f.add(Blocker, BindMount, install, "%s, bind-mounted at %s, is another device here", path, destination)
		}
	case Noun(b.Mode) != "directory" && Noun(b.Mode) != "file":
		f.add(Note, BindMount, "", "%s, a %s bind-mounted at %s, is this host's after the move", path, Noun(b.Mode), destination)
	case b.Equal && b.Digest != "" && b.Digest == ours.Digest && b.Mode == ours.Mode && b.UID == ours.UID && b.GID == ours.GID:
	case b.Mark != "":
		if err := FindMark(path, b.Mark); err != nil {
			f.add(Blocker, NotShared, mount, "%s, bind-mounted at %s, is another %s here than at the source: %v", path, destination, Noun(b.Mode), err)
		}
	default:
		if differ := b.differences(ours); len(differ) > 0 {
			f.add(Blocker, NotShared, mount, "%s, bind-mounted at %s, is another %s here than at the source: %s", path, destination, Noun(b.Mode),
				strings.Join(differ, ", "))
		} else if Noun(b.Mode) == "file" && !b.Equal {
			f.add(Warning, NotShared, mount, "%s, bind-mounted at %s, looks the same on both hosts, but so would a copy, and the container may write to it",
				path, destination)
		} else {
			f.add(Note, NotShared, "", "%s, bind-mounted at %s, looks the same on both hosts; the source cannot write there to prove it", path, destination)
		}
	}
	return f
}

// differences are what tells two files or directories apart that cannot be marked. Two clones of a disk have none.
func (b *Bind) differences(ours *Bind) []string {
	var all []string
	for _, d := range []struct {
		differ bool
		format string
		here   any
		there  any
	}{
		{ours.Kind != b.Kind, "its file system is of kind %#x here and %#x there", ours.Kind, b.Kind},
		{ours.Inode != b.Inode, "its inode is %d here and %d there", ours.Inode, b.Inode},
		{ours.Mode != b.Mode, "its mode is %o here and %o there", ours.Mode, b.Mode},
		{ours.UID != b.UID || ours.GID != b.GID, "its owner is %s here and %s there", owner(ours), owner(b)},
		{ours.Size != b.Size, "it has %d bytes here and %d there", ours.Size, b.Size},
		{ours.Mtime != b.Mtime, "it changed at %d here and at %d there", ours.Mtime.Sec, b.Mtime.Sec},
		{ours.Digest != b.Digest, "its content is %.8s here and %.8s there", ours.Digest, b.Digest},
	} {
		if d.differ {
			all = append(all, fmt.Sprintf(d.format, d.here, d.there))
		}
	}
	return all
}

func owner(b *Bind) string { return fmt.Sprintf("%d:%d", b.UID, b.GID) }

// errNoMark is what a directory lacks that is not the source's.
var errNoMark = errors.New("what the source has written there is not seen here")

// FindMark looks for what the other host's LeaveMark has left.
func FindMark(path, token string) error {
	if !validMark(token) {
		return errNoMark
	}
	dir, name, err := openParent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if value, err := dir.Xattr(name, markAttr(token)); err == nil && strings.HasPrefix(string(value), token+" ") {
		return nil
	}
	file, err := dir.OpenFile(markFile(token))
	if err != nil {
		return errNoMark
	}
	defer file.Close()
	found := make([]byte, len(token))
	if n, _ := io.ReadFull(file, found); string(found[:n]) != token {
		return errNoMark
	}
	return nil
}
