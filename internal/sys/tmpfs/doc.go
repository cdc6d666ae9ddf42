// Package tmpfs carries what is in a tmpfs mount of one container to a mount that is made for another.
//
// The form is a line of JSON for each name, in the order in which they are made, each followed by the bytes of its extents; the
// last line says that it is the last.
package tmpfs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrOptions: a mount option whose meaning here is not known.
	ErrOptions = errors.New("unknown option of a tmpfs")
	// ErrMalformed: what was packed is cut or altered.
	ErrMalformed = errors.New("malformed content of a tmpfs")
)

// entry is a name.
type entry struct {
	Name    string     `json:"name,omitempty"` // beneath the root, which is "."
	Mode    uint32     `json:"mode,omitempty"` // of stat(2)
	UID     uint32     `json:"uid,omitempty"`
	GID     uint32     `json:"gid,omitempty"`
	Mtime   int64      `json:"mtime,omitempty"` // nanoseconds
	Device  uint64     `json:"device,omitempty"`
	Link    string     `json:"link,omitempty"` // what a symbolic link says; with Hard, another name of the file
	Hard    bool       `json:"hard,omitempty"`
	Size    int64      `json:"size,omitempty"`
	Extents [][2]int64 `json:"extents,omitempty"` // offset and length of what is not a hole
	Last    bool       `json:"last,omitempty"`
}

// CheckOptions returns the options of a superblock, as mountinfo has them, in the form that Mount takes. Read-only is none of
// them: see Close.
func CheckOptions(options string) (string, error) {
	var known []string
	for option := range strings.SplitSeq(options, ",") {
		key, _, _ := strings.Cut(option, "=")
		switch key {
		case "rw", "ro", "":
		case "size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "huge", "inode32", "inode64":
			known = append(known, option)
		default:
			return "", fmt.Errorf("%w: %s", ErrOptions, option)
		}
	}
	return strings.Join(known, ","), nil
}

// Mount mounts an empty one, which mountinfo says to be of that source. The options are checked.
func Mount(source, dir, options string) error {
	options, err := CheckOptions(options)
	if err != nil {
		return err
	}
	if err := unix.Mount(source, dir, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make tmpfs private: %w", err)
	}
	return nil
}

// Close makes the whole file system read-only.
func Close(dir string) error {
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make tmpfs on %s read-only: %w", dir, err)
	}
	return nil
}
