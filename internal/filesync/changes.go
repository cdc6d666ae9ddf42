package filesync

import "github.com/livemigrate/migrate/internal/sys/fs"

// changeLog tells what changed in a tree, so that the frozen window need not compare all of it.
type changeLog interface {
	name() string
	// reset forgets what happened so far: a full pass is about to look at everything.
	reset() error
	// take returns what happened since the last reset or take.
	take() *changes
	// unmapped says whether the end of a mapping that could write is in the log.
	unmapped() bool
	// pause leaves what happens in the log until the next take: hearing of it costs processor time.
	pause() (resume func())
	close() error
}

// changes is what a log names. A path in it need not exist any more.
type changes struct {
	full     string // not empty: the log cannot tell, and why
	paths    map[string]changeFlag
	inodes   []inode                             // changed through a name outside the root
	modified func(dir *fs.Dir, name string) bool // whether the content may have changed; nil: always
}

type changeFlag uint8

const (
	changeTree    changeFlag = 1 << iota // what is beneath may be new too
	changeFresh                          // the directory is a new one; nothing of what the peer has there is left
	changeContent                        // the content has to be read again
	changeWritten                        // the content has been written to
	changeMore                           // something else than the content may have changed
)

// mark adds a path.
func (c *changes) mark(path string, flag changeFlag) { c.paths[path] |= flag }
