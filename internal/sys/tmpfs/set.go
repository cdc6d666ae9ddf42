package tmpfs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SetName is the file with what is in the tmpfs mounts that CRIU was told to leave out. Only a peer of ours gets it.
const SetName = "tmpfs.files"

// Placed is such a mount.
type Placed struct {
	Path    []byte `json:"path"` // in the container, as its mountinfo has it
	Source  []byte `json:"source"`
	Options string `json:"options"`          // of its superblock
	Sealed  bool   `json:"sealed,omitempty"` // that is read-only
	Device  uint64 `json:"-"`                // that it has here, as Look tells it
}

// Save saves the mounts of a process that stands still. An older file is replaced.
func Save(dir string, pid int, mounts []Placed) (err error) {
	file, err := os.OpenFile(filepath.Join(dir, SetName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("save tmpfs: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out := bufio.NewWriterSize(file, 1<<16)
	for _, m := range mounts {
		if err := save(out, pid, m); err != nil {
			return fmt.Errorf("save tmpfs %q: %w", m.Path, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("save tmpfs: %w", err)
	}
	return nil
}

func save(out *bufio.Writer, pid int, m Placed) (err error) {
	root, err := Open(pid, string(m.Path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Dev != m.Device {
		return ErrOther
	}
	if err := json.NewEncoder(out).Encode(m); err != nil {
		return err
	}
	return Pack(root, out)
}

// Restore makes the mounts of a set, each filled, on directories that place names; place also judges where they say they
// belong. A set without that file has none.
func Restore(dir string, place func(m Placed) (string, error)) error {
	file, err := os.Open(filepath.Join(dir, SetName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restore tmpfs: %w", err)
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 1<<16)
	// CRIU may have given names to files that had none, since the source looked.
	left := int64(2 * Limit)
	for {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		var m Placed
		if err := readLine(in, &m); err != nil {
			return fmt.Errorf("restore tmpfs: %w", err)
		}
		taken, err := restore(in, m, left, place)
		if err != nil {
			return fmt.Errorf("restore tmpfs %q: %w", m.Path, err)
		}
		left -= taken
	}
}

func restore(in *bufio.Reader, m Placed, limit int64, place func(m Placed) (string, error)) (taken int64, err error) {
	at, err := place(m)
	if err != nil {
		return 0, err
	}
	if err := Mount(string(m.Source), at, m.Options); err != nil {
		return 0, err
	}
	if taken, err = Unpack(at, in, limit); err != nil {
		return 0, err
	}
	if err := Finish(at); err != nil || !m.Sealed {
		return taken, err
	}
	return taken, Seal(at)
}
