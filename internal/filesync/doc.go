// Package filesync keeps a directory at the peer equal to one at the source while a container runs in it, and makes the two
// the same for good while the container is frozen. docs/filesync.md tells how.
//
// The source:
//
//	s := OpenSource(root)    the index of digests
//	s.Watch                  the change log starts
//	s.Pass                   running: compares the trees, sends what differs
//	s.Pass ...               running: what the change log names since
//	s.Delta                  frozen: the same, to the last byte
//	s.Close
//
// The peer calls Serve once for every Pass and Delta, and Sync when the container runs there.
package filesync
