package tmpfs

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// SetName is the file with what is in the tmpfs mounts that CRIU was told to leave out: for each a line of JSON, then what
// Pack writes. Only a peer of ours gets it.
const SetName = "tmpfs.files"

// Placed is such a mount.
type Placed struct {
	Path    string `json:"path"` // in the container, as its mountinfo has it
	Source  string `json:"source"`
	Options string `json:"options"`          // of its superblock
	Closed  bool   `json:"closed,omitempty"` // that is read-only
}

// Save saves the mounts of a process that stands still.
func Save(dir string, pid int, mounts []Placed) (err error) {
	file, err := os.OpenFile(filepath.Join(dir, SetName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("save tmpfs: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out := bufio.NewWriterSize(file, 1<<16)
	for _, m := range mounts {
		if err := save(out, pid, m); err != nil {
			return fmt.Errorf("save tmpfs: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("save tmpfs: %w", err)
	}
	return nil
}

func save(out *bufio.Writer, pid int, m Placed) (err error) {
	root, err := Open(pid, m.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := json.NewEncoder(out).Encode(m); err != nil {
		return err
	}
	return Pack(root, out)
}

// Restore makes the mounts of a set, each filled, on directories that place names. A set without that file has none.
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
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		var m Placed
		if err == nil {
			err = json.Unmarshal(line, &m)
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrMalformed, SetName, err)
		}
		at, err := place(m)
		if err == nil {
			err = Mount(m.Source, at, m.Options)
		}
		if err == nil {
			err = Unpack(at, in)
		}
		if err == nil && m.Closed {
			err = Close(at)
		}
		if err != nil {
			return fmt.Errorf("restore tmpfs %s: %w", m.Path, err)
		}
	}
}
