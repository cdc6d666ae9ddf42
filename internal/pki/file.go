package pki

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// refuseExisting finds files in the way before any is written. The writing itself refuses them once more.
func refuseExisting(force bool, paths ...string) error {
	if force {
		return nil
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s %w", path, ErrExists)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// writePEM writes a file whole or not at all: beside its place, to disk, then into its place. A link, unlike a rename,
// never replaces what is there.
func writePEM(path, kind string, der []byte, mode os.FileMode, force bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".migrate-pki-*") // 0600: a key is never readable, not for a moment
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.Remove(f.Name()); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if force {
		return os.Rename(f.Name(), path)
	}
	if err := os.Link(f.Name(), path); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s %w", path, ErrExists)
	} else if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
