//go:build race

package testutil

// Race says that the race detector is in the test: it takes several times the memory and the time, so limits on them say
// nothing.
const Race = true
