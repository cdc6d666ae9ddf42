package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Remove clears an older set out of dir. Other files stay.
func Remove(dir string) error {
	names, err := list(dir)
	if err != nil {
		return fmt.Errorf("remove old images: %w", err)
	}
	for _, name := range append(names, manifestName, parentName) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove old images: %w", err)
		}
	}
	return nil
}

// Sync makes the set durable: when it returns, a power cut loses nothing of it.
func Sync(dir string) error {
	names, err := list(dir)
	if err != nil {
		return fmt.Errorf("sync images: %w", err)
	}
	for _, name := range append(names, manifestName, ".") {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("sync images: %w", err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync images: %w", err)
		}
	}
	return nil
}

// HandTo gives the directory and the set's files to another owner, and returns how to take them back. With a user
// namespace CRIU opens images as the root of that namespace, to whom a 0700 directory of ours is closed.
func HandTo(dir string, uid, gid int) (takeBack func() error, err error) {
	names, err := list(dir)
	if err != nil {
		return nil, fmt.Errorf("hand over images: %w", err)
	}
	change := func(uid, gid int) error {
		for _, name := range append(names, ".") {
			if err := os.Lchown(filepath.Join(dir, name), uid, gid); err != nil {
				return fmt.Errorf("hand over images: %w", err)
			}
		}
		return nil
	}
	takeBack = func() error { return change(os.Geteuid(), os.Getegid()) }
	if err := change(uid, gid); err != nil {
		return nil, errors.Join(err, takeBack())
	}
	return takeBack, nil
}
