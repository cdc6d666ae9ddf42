//go:build !amd64 && !arm64

package limits

import (
	"errors"
	"os"
)

// Supported tells whether there is such a library for this processor.
const Supported = false

// Library has none for this processor.
func Library() (*os.File, error) { return nil, errors.ErrUnsupported }
