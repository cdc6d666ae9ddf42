//go:build !((amd64 || arm64) && cgo)

package limits

import (
	"errors"
	"os"
)

// Supported tells whether there is such a library for this processor, and in a program that is compiled with C.
const Supported = false

// Library has none.
func Library() (*os.File, error) { return nil, errors.ErrUnsupported }
