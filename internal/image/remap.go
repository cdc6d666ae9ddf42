package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// HasLinkRemaps tells whether CRIU, with its option link_remap, has made hard links for open files whose name was deleted:
// link_remap.N, beside the name that they had. A restore needs them in the tree, and removes them.
func HasLinkRemaps(dir string) (bool, error) {
	files, err := os.ReadFile(filepath.Join(dir, "files.img"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read image: %w", err)
	}
	// Not decoded: a file of the container's with such a name costs one look too many.
	return bytes.Contains(files, []byte("link_remap.")), nil
}
