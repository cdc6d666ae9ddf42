// Package tmpfs carries what is in tmpfs mounts of one container to mounts that are made for another.
//
//  1. Look tells how much is in a mount. What a peer makes of it is charged to whoever runs Restore, not to the container, so
//     all mounts of a set have at most Limit; the caller leaves others to somebody else.
//  2. Save writes the mounts of a process that stands still to one file: for each a line of JSON, then what Pack writes.
//  3. Restore makes them.
//
// Pack writes a line of JSON for each name, in the order in which they are made, each followed by the bytes of its extents; the
// last line says that it is the last. Names are bytes, not text. Extended attributes and access lists go along, but for labels of
// security modules; with CRIU, whose tar is not told to take them, they stay behind. Sockets do, which whoever listens makes anew. A
// tree takes a descriptor for each of its levels, and one that is deeper than a path may be long (PATH_MAX) is refused.
package tmpfs

import "errors"

// Limit is how much there may be in all mounts of a set, in bytes: their pages, and a kilobyte for each name.
const Limit = 16 << 20

var (
	// ErrOptions: a mount option whose meaning here is not known.
	ErrOptions = errors.New("unknown option of a tmpfs")
	// ErrMalformed: what was packed is cut or altered.
	ErrMalformed = errors.New("malformed content of a tmpfs")
	// ErrTooMuch: more was packed than may be.
	ErrTooMuch = errors.New("too much content of a tmpfs")
	// ErrOther: another file system is at the path of a mount.
	ErrOther = errors.New("another file system is where the tmpfs was")
)
