package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/sys/tmpfs"
)

// makeTmpfs makes the tmpfs mounts that CRIU has left out of the set. It binds them where they belong.
func (a *attempt) makeTmpfs() error {
	scratch := ""
	return tmpfs.Restore(a.options.ImagesDir, func(m tmpfs.Placed) (at string, err error) {
		if scratch == "" {
			if scratch, err = a.prepared.Scratch(); err != nil {
				return "", err
			}
		}
		at = filepath.Join(scratch, strconv.Itoa(len(a.tmpfs)))
		if err := os.Mkdir(at, 0o700); err != nil {
			return "", fmt.Errorf("make mount point: %w", err)
		}
		a.tmpfs = append(a.tmpfs, &criu.ExtMount{Key: &m.Path, Val: &at})
		return at, nil
	})
}
