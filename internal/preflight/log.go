package preflight

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/sys/fs"
)

// judgeLog finds a log that the container's monitor could not write here.
func (a *Arrival) judgeLog() Findings {
	if a.LogFile == "" {
		return nil
	}
	var f Findings
	file, err := monitor.OpenNamed(a.LogFile, 0)
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
