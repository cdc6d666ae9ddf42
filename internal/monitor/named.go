package monitor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// OpenNamed opens the log of a container to append to it, where another host has said its path; flag may be os.O_CREATE and
// os.O_EXCL. Opening a device may do something, and a link may lead anywhere: it is a regular file or /dev/null, and there is no
// link at the path's end. ErrNotExist when there is none. The caller closes it.
func OpenNamed(path string, flag int) (*os.File, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, fmt.Errorf("%q is not an absolute path in its shortest form", path)
	}
	fits := func(info fs.FileInfo) error {
		if info.Mode().IsRegular() || path == os.DevNull && info.Mode()&os.ModeCharDevice != 0 {
			return nil
		}
		return fmt.Errorf("%s is not a regular file, but %v", path, info.Mode())
	}
	info, err := os.Lstat(path)
	if err == nil {
		err = fits(info)
	} else if errors.Is(err, os.ErrNotExist) && flag&os.O_CREATE != 0 {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|flag|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err == nil { // it may be another by now
		err = fits(info)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
