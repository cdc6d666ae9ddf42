package image

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/internal/memory"
)

// A set that CRIU can read, of one whose page files are compressed, or are those of a parent's. It has no parent: of every page
// that is needed it has one copy, in the order of its own maps, and of pages that come later, lazily, none.
//
//	maps of the set          each run's pages are looked for in the set and below it (trace), which gives moves
//	moves                    from a chunk of some page file to a place in a new one; sorted by chunks, so that each is read once
//	Write                    chunks are read, proven and unpacked by as many goroutines as there are processors

// Unpacking is such a set before it is written.
type Unpacking struct {
	set      *Set
	sources  []source
	maps     []namedMap
	moves    []move
	metadata []string // that is copied
	bytes    int64
}

// source is a page file that pages are taken from.
type source struct {
	set   *Set
	name  string
	known *Pages // nil without a manifest
	size  int64  // unpacked
	chunk int64
}

// namedMap is a new page map and its page file.
type namedMap struct {
	name string
	m    *PageMap
	size int64
}

// move is bytes from within one chunk of a source.
type move struct {
	source   int
	from, to int64
	target   int // of the maps
	size     int64
}

// unknownChunk is what is read at a time where no digest says how much it covers.
const unknownChunk = 1 << 20

// Unpack plans it. lazy: memory that a feeder can give to the processes later is left out, and is what Lazy tells of.
// ErrElsewhere when not all of the memory is in files.
func (s *Set) Unpack(lazy bool) (*Unpacking, error) {
	u := &Unpacking{set: s}
	if err := u.plan(lazy); err != nil {
		return nil, fmt.Errorf("unpack %q: %w", s.Dir, err)
	}
	return u, nil
}

func (u *Unpacking) plan(lazy bool) error {
	names, err := list(u.set.Dir)
	if err != nil {
		return err
	}
	cutters, err := u.cutters(lazy)
	if err != nil {
		return err
	}
	sources := map[string]int{}
	for _, name := range names {
		switch {
		case IsPages(name) || IsPacked(name):
		case strings.HasPrefix(name, "pagemap-"):
			chain, err := u.chain(name, sources)
			if err != nil {
				return err
			}
			if err := u.addMap(name, chain, cutters[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		default:
			info, err := os.Stat(filepath.Join(u.set.Dir, name))
			if err != nil {
				return err
			}
			u.metadata = append(u.metadata, name)
			u.bytes += info.Size()
		}
	}
	slices.SortFunc(u.moves, func(a, b move) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.from, b.from))
	})
	return nil
}

// cutters are those of the processes, by the names of their maps, where some of their memory is left out.
func (u *Unpacking) cutters(lazy bool) (map[string]*cutter, error) {
	cutters := map[string]*cutter{}
	if !lazy {
		return cutters, nil
	}
	tasks, err := readTree(u.set.Dir)
	if err != nil {
		return nil, err
	}
	for _, t := range tasks {
		m := PageMap{VPid: int(t.pid)}
		if !isThere(u.set.Dir, m.name()) {
			continue // a zombie
		}
		c := &cutter{}
		if c.areas, err = readAreas(u.set.Dir, int(t.pid)); err != nil {
			return nil, err
		}
		if c.stacks, err = stackPages(u.set.Dir, t); err != nil {
			return nil, err
		}
		cutters[m.name()] = c
	}
	return cutters, nil
}

// chain is what the set and those below it have of a map.
func (u *Unpacking) chain(name string, sources map[string]int) ([]*level, error) {
	var chain []*level
	for _, set := range append([]*Set{u.set}, u.set.Parents...) {
		if !isThere(set.Dir, name) {
			break // the process is younger
		}
		m, err := readPageMap(set.Dir, name)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(set.Dir, pagesName(m.PagesID))
		i, ok := sources[path]
		if !ok {
			src, err := set.source(pagesName(m.PagesID))
			if err != nil {
				return nil, err
			}
			i = len(u.sources)
			sources[path] = i
			u.sources = append(u.sources, src)
		}
		chain = append(chain, &level{m: m, file: i, firsts: m.firsts(0)})
	}
	return chain, nil
}

// source is a page file of the set; one that is not there, of a map without pages, is empty.
func (s *Set) source(name string) (source, error) {
	src := source{set: s, name: name, known: s.known(name), chunk: unknownChunk}
	if src.known != nil {
		src.size, src.chunk = src.known.Size, src.known.Chunk
		return src, nil
	}
	info, err := os.Stat(filepath.Join(s.Dir, name))
	if err == nil {
		src.size = info.Size()
	} else if os.IsNotExist(err) {
		err = nil
	}
	return src, err
}

// addMap makes a map anew, with all of its pages present that are not left out.
func (u *Unpacking) addMap(name string, chain []*level, c *cutter) error {
	m := chain[0].m
	now := namedMap{name: name, m: &PageMap{PagesID: m.PagesID, wide: m.wide, narrow: m.narrow}}
	target := len(u.maps)
	present := func(part memory.Range, slot uint64, file int) error {
		u.bytes += int64(part.Bytes())
		now.m.add(part, PagePresent)
		return u.addMoves(file, int64(slot)*memory.PageSize, target, &now.size, int64(part.Bytes()))
	}
	for _, run := range m.Runs {
		cut := func(r memory.Range, f func(memory.Range, bool) error) error { return f(r, false) }
		if c != nil {
			cut = c.cut
		}
		err := cut(run.Range, func(part memory.Range, lazy bool) error {
			if lazy {
				now.m.add(part, PageLazy)
				return nil
			}
			var failed error
			err := trace(chain, part, func(part memory.Range, slot uint64, file int) {
				if failed == nil {
					failed = present(part, slot, file)
				}
			})
			if err == nil {
				err = failed
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	u.maps = append(u.maps, now)
	return nil
}

// addMoves cuts a stretch of a page file at its chunks.
func (u *Unpacking) addMoves(file int, from int64, target int, to *int64, size int64) error {
	src := &u.sources[file]
	if from+size > src.size {
		return damaged(src.name, "%d bytes, its maps name %d", src.size, from+size)
	}
	for size > 0 {
		n := min(size, src.chunk-from%src.chunk)
		u.moves = append(u.moves, move{source: file, from: from, to: *to, target: target, size: n})
		from, size, *to = from+n, size-n, *to+n
	}
	return nil
}

// Bytes is what the unpacked set takes.
func (u *Unpacking) Bytes() int64 { return u.bytes }

// copyMetadata copies what is not memory, and writes the maps.
func (u *Unpacking) copyMetadata(dir string) error {
	for _, name := range u.metadata {
		if err := copyFile(filepath.Join(dir, name), filepath.Join(u.set.Dir, name)); err != nil {
			return err
		}
	}
	for _, m := range u.maps {
		if err := os.WriteFile(filepath.Join(dir, m.name), m.m.encode(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closing := out.Close(); err == nil {
		err = closing
	}
	return err
}
