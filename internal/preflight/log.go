package preflight

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// judgeLog finds a log that the container's monitor could not write here.
func (a *Arrival) judgeLog() Findings {
	if a.LogFile == "" {
		return nil
	}
	var f Findings
	file, err := OpenLog(a.LogFile, 0)
	switch {
	case err == nil:
		_ = file.Close()
	case errors.Is(err, os.ErrNotExist):
		err = fs.CanMake(filepath.Dir(a.LogFile))
	}
	if err != nil {
		f.add(Blocker, LogFile, "make the directory, or mend what is in the way", "its log %s can't be written on this host: %v", a.LogFile, err)
	}
	return f
}

// OpenLog opens the log of a container to append to it, where another host has said its path; flag may be os.O_CREATE and
// os.O_EXCL. Opening a device may do something, and a link may lead anywhere: it is a regular file or /dev/null, as of a
// container that is made here. ErrNotExist when there is none. The caller closes it.
func OpenLog(path string, flag int) (*os.File, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, fmt.Errorf("%q is not an absolute path in its shortest form", path)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && flag&os.O_CREATE != 0:
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() && path != os.DevNull:
		return nil, fmt.Errorf("%s is not a regular file, but %v", path, info.Mode())
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|flag|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o600)
}
