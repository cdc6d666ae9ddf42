package tmpfs

import (
	"bufio"
	"encoding/json"
	"fmt"
)

const (
	// nameCost is what the kernel keeps for a name, an inode and what belongs to it, in bytes; a little more than it is.
	nameCost = 1 << 10
	pageSize = 4 << 10
	// shortLink is the longest link that is kept without a page.
	shortLink = 127
	// lineExtents bounds a line: the extents of a file that has more go on in the next.
	lineExtents = 4096
	// lineLimit is what a line can have: a name, a link, and extents.
	lineLimit = 1 << 20
)

// entry is a name, or more extents of the one before.
type entry struct {
	Name    []byte     `json:"name,omitempty"` // beneath the root, which is "."
	Mode    uint32     `json:"mode,omitempty"` // of stat(2)
	UID     uint32     `json:"uid,omitempty"`
	GID     uint32     `json:"gid,omitempty"`
	Mtime   int64      `json:"mtime,omitempty"` // nanoseconds
	Device  uint64     `json:"device,omitempty"`
	Link    []byte     `json:"link,omitempty"` // what a symbolic link says; with Hard, another name of the file
	Hard    bool       `json:"hard,omitempty"`
	Size    int64      `json:"size,omitempty"`
	Extents [][2]int64 `json:"extents,omitempty"` // offset and length of what is not a hole
	More    bool       `json:"more,omitempty"`    // after their bytes comes a line with more of them
	Last    bool       `json:"last,omitempty"`

	Attributes map[string][]byte `json:"attributes,omitempty"` // extended ones, and access lists
}

// cost is what the name takes without its extents.
func (e *entry) cost() int64 {
	cost := int64(nameCost)
	if !e.Hard && len(e.Link) > shortLink {
		cost += pageSize
	}
	for name, value := range e.Attributes {
		cost += int64(len(name) + len(value))
	}
	return cost
}

func readEntry(in *bufio.Reader) (e entry, err error) {
	err = readLine(in, &e)
	return e, err
}

// readLine reads a line of JSON.
func readLine(in *bufio.Reader, to any) error {
	var line []byte
	for more := true; more; {
		part, rest, err := in.ReadLine()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if line = append(line, part...); len(line) > lineLimit {
			return fmt.Errorf("%w: a line of more than %d bytes", ErrMalformed, lineLimit)
		}
		more = rest
	}
	if err := json.Unmarshal(line, to); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}
