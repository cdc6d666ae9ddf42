package reader

import (
	"bytes"

	"github.com/livemigrate/migrate/internal/memory"
)

// zeroPage is never written to.
var zeroPage [memory.PageSize]byte

// Zero says that a page holds nothing but zeros. It stops at the first word that does not, as most pages have early.
func Zero(page []byte) bool { return bytes.Equal(page, zeroPage[:]) }
