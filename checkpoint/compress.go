package checkpoint

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/image"
)

// Compression is how memory is kept in the images.
type Compression string

const (
	// NoCompression leaves a set that any CRIU restores; so does the zero value.
	NoCompression Compression = "none"
	// Zstd compresses chunk by chunk. Only we restore such a set; others find no pages, and fail.
	Zstd Compression = "zstd"
)

// ErrCompress: it cannot be compressed. The text says what stands against it.
var ErrCompress = errors.New("memory cannot be compressed")

// checkCompression: what is compressed is whole files, after CRIU has written them, and before a manifest.
func (o *Options) checkCompression() error {
	switch {
	case o.Compress != "" && o.Compress != NoCompression && o.Compress != Zstd:
		return fmt.Errorf("%w: %q is not known: use zstd or none", ErrCompress, o.Compress)
	case o.Compress == Zstd && (o.PageServer != "" || o.LazyPages || o.AutoDedup || o.NoManifest):
		return fmt.Errorf("%w together with a page server, lazy pages or deduplication", ErrCompress)
	case o.ParentPath == "" || o.compare:
		return nil
	}
	packed, err := image.HasPacked(filepath.Join(o.ImagesDir, o.ParentPath))
	if err == nil && packed { // CRIU would read it itself
		err = errors.New("invalid --parent-path: it is compressed, and that goes with no page server, lazy pages or deduplication")
	}
	return err
}
