//go:build failpoint

package transport

import "time"

// In the program that faults are tried on, a stalled link is noticed sooner: nobody has to wait for it hundreds of times.
const (
	defaultHeartbeat = 800 * time.Millisecond
	defaultSilence   = 4 * time.Second
)
