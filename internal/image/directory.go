package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
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
		if err := syncFile(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("sync images: %w", err)
		}
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// ShareWith lets a group read the set, and returns how to take that back. With a user namespace CRIU opens images in two
// guises: as our user id without its privileges, before the namespace has its mappings, and later as the root of that
// namespace, to whom a directory of ours is closed. So the owner stays, and the group becomes the namespace's root's.
func ShareWith(dir string, gid int) (takeBack func() error, err error) {
	names, err := list(dir)
	if err != nil {
		return nil, fmt.Errorf("share images: %w", err)
	}
	var undo []func() error
	takeBack = func() error {
		var err error
		for _, u := range undo {
			err = errors.Join(err, u())
		}
		return err
	}
	// CRIU knows the names, but opens a parent's directory for reading.
	for _, name := range append(names, ".") {
		bits := os.FileMode(0o040)
		if name == "." {
			bits = 0o050
		}
		back, err := share(dir+"/"+name, gid, bits) // not cleaned: dir itself may be a link
		if err != nil {
			return nil, errors.Join(fmt.Errorf("share images: %w", err), takeBack())
		}
		undo = append(undo, back)
	}
	return takeBack, nil
}

func share(path string, gid int, bits os.FileMode) (takeBack func() error, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	before := info.Sys().(*syscall.Stat_t)
	takeBack = func() error {
		return errors.Join(os.Lchown(path, -1, int(before.Gid)), os.Chmod(path, info.Mode().Perm()))
	}
	if err := errors.Join(os.Lchown(path, -1, gid), os.Chmod(path, info.Mode().Perm()|bits)); err != nil {
		return nil, errors.Join(err, takeBack())
	}
	return takeBack, nil
}
