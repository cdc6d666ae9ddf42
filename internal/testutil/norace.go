//go:build !race

package testutil

// Race says that the race detector is in the test.
const Race = false
