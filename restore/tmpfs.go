package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/sys/tmpfs"
)

// errPlace: the set has a tmpfs that the container's config has not, or twice.
var errPlace = errors.New("not a tmpfs of the container's config")

// makeTmpfs makes the tmpfs mounts that CRIU has left out of the set. It binds them where they belong.
func (a *attempt) makeTmpfs() error {
	scratch, own := "", []string(nil)
	return tmpfs.Restore(a.options.ImagesDir, func(m tmpfs.Placed) (at string, err error) {
		path := string(m.Path)
		if own == nil {
			if own, err = criu.OwnTmpfs(a.plan.Rootfs, a.plan.Spec); err != nil {
				return "", err
			}
		}
		twice := slices.ContainsFunc(a.tmpfs, func(other *criu.ExtMount) bool { return other.GetKey() == path })
		if twice || !slices.Contains(own, path) {
			return "", errPlace
		}
		if scratch == "" {
			if scratch, err = a.prepared.Scratch(); err != nil {
				return "", err
			}
		}
		at = filepath.Join(scratch, strconv.Itoa(len(a.tmpfs)))
		if err := os.Mkdir(at, 0o700); err != nil {
			return "", fmt.Errorf("make mount point: %w", err)
		}
		a.tmpfs = append(a.tmpfs, &criu.ExtMount{Key: &path, Val: &at})
		return at, nil
	})
}
