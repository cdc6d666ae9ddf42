//go:build !failpoint

package failpoint

import (
	"context"
	"time"
)

// Hit does nothing.
func Hit(context.Context, Point) error { return nil }

// Now is the time.
func Now() time.Time { return time.Now() }
