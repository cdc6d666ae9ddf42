//go:build !failpoint

package transport

import "time"

const (
	// defaultHeartbeat is how often each side sends a heartbeat.
	defaultHeartbeat = 2 * time.Second
	// defaultSilence is how long nothing may come before the peer counts as gone: five heartbeats, so that a host under
	// full load, or a moment's loss, ends nothing.
	defaultSilence = 10 * time.Second
)
