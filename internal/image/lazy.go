package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/livemigrate/migrate/internal/memory"
)

// ErrElsewhere: the set has memory that is in no file of it, only where the checkpoint was taken. A server of lazy pages that
// reaches there must run.
var ErrElsewhere = errors.New("memory is not in the images")

// Lazy says where the memory is that a lazy restore of a set leaves out: pages of its files, and of its parents'. Pages are
// numbered through all files, from 1 on: their slots.
type Lazy struct {
	Files  []PageFile
	Spaces []LazySpace // every process with memory, by VPid; also one with nothing to be fed

	set  *Set
	maps []*PageMap // those that CRIU must be given in the place of the set's
}

// PageFile is a file of the set or of a parent.
type PageFile struct {
	Path  string
	First uint64 // slot of its first page
	Pages uint64
	Known *Pages // what the manifest says about it, compressed for one; nil without one

	eager []memory.Range // what CRIU reads itself, by byte in the file
}

// LazySpace is one process.
type LazySpace struct {
	VPid int
	Runs []LazyRun // by address
}

// LazyRun is neighbouring pages that are neighbours in the file, too.
type LazyRun struct {
	memory.Range
	Slot uint64
}

// Lazy finds what a lazy restore of the set would leave out. ErrElsewhere when not all of it is in files.
func (s *Set) Lazy() (*Lazy, error) {
	l := &Lazy{set: s}
	if err := l.find(); err != nil {
		return nil, fmt.Errorf("find memory for later in %q: %w", s.Dir, err)
	}
	return l, nil
}

func (l *Lazy) find() error {
	levels := make([]map[int]*level, 0, 1+len(l.set.Parents))
	slot := uint64(1)
	for _, set := range append([]*Set{l.set}, l.set.Parents...) {
		maps, err := ReadPageMaps(set.Dir)
		if err != nil {
			return err
		}
		byPid := map[int]*level{}
		for _, m := range maps {
			file := PageFile{Path: filepath.Join(set.Dir, pagesName(m.PagesID)), First: slot, Known: set.known(pagesName(m.PagesID))}
			if file.Known != nil {
				stored, _ := file.Known.stored()
				file.Path = filepath.Join(set.Dir, stored)
			}
			byPid[m.VPid] = &level{m: m, file: len(l.Files), firsts: m.firsts(slot)}
			for _, run := range m.Runs {
				if run.Flags&PagePresent != 0 {
					file.Pages += run.Pages
				}
			}
			slot += file.Pages
			l.Files = append(l.Files, file)
		}
		levels = append(levels, byPid)
	}
	tasks, err := readTree(l.set.Dir)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if levels[0][int(t.pid)] == nil {
			continue // a zombie
		}
		var chain []*level // of this process: it may be younger than a parent
		for _, byPid := range levels {
			if lv := byPid[int(t.pid)]; lv != nil {
				chain = append(chain, lv)
			} else {
				break
			}
		}
		if err := l.addSpace(t, chain); err != nil {
			return err
		}
	}
	sort.Slice(l.Spaces, func(i, j int) bool { return l.Spaces[i].VPid < l.Spaces[j].VPid })
	return nil
}

// known is what the manifest says about a file of pages.
func (s *Set) known(name string) *Pages {
	if s.Manifest == nil {
		return nil
	}
	for i := range s.Manifest.Pages {
		if p := &s.Manifest.Pages[i]; p.Name == name {
			return p
		}
	}
	return nil
}

// level is what one directory of the chain has of a process.
type level struct {
	m      *PageMap
	file   int
	firsts []uint64 // of each run: the slot of its first page
}

func (m *PageMap) firsts(slot uint64) []uint64 {
	firsts := make([]uint64, len(m.Runs))
	for i, run := range m.Runs {
		firsts[i] = slot
		if run.Flags&PagePresent != 0 {
			slot += run.Pages
		}
	}
	return firsts
}

// addSpace divides a process's memory into what CRIU reads, and what is fed.
func (l *Lazy) addSpace(t task, chain []*level) error {
	var c cutter
	var err error
	if c.areas, err = readAreas(l.set.Dir, int(t.pid)); err != nil {
		return err
	}
	if c.stacks, err = stackPages(l.set.Dir, t); err != nil {
		return err
	}
	m := chain[0].m
	space := LazySpace{VPid: m.VPid}
	now := &PageMap{VPid: m.VPid, PagesID: m.PagesID, wide: m.wide, narrow: m.narrow}
	later := func(r memory.Range, slot uint64, _ int) { space.add(r, slot) }
	atOnce := func(r memory.Range, slot uint64, file int) { l.Files[file].read(slot, r.Pages) }
	changed := false
	for _, run := range m.Runs {
		err := c.cut(run.Range, func(part memory.Range, lazy bool) error {
			flags, use := run.Flags, atOnce
			switch {
			case !lazy && flags&PagePresent != 0:
				flags &^= PageLazy
			case lazy && flags&PageParent != 0:
				flags, use = PageLazy, later
			case lazy:
				flags, use = flags|PageLazy, later
			}
			changed = changed || flags != run.Flags
			now.add(part, flags)
			return trace(chain, part, use)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", m.name(), err)
		}
	}
	l.Spaces = append(l.Spaces, space)
	if changed {
		l.maps = append(l.maps, now)
	}
	return nil
}

// trace calls f for each part of r, with the file that has it.
func trace(chain []*level, r memory.Range, f func(part memory.Range, slot uint64, file int)) error {
	if len(chain) == 0 {
		return ErrUnresolved
	}
	lv := chain[0]
	runs := lv.m.Runs
	i := sort.Search(len(runs), func(i int) bool { return runs[i].End() > r.Start })
	for at := r.Start; at < r.End(); i++ {
		if i == len(runs) || runs[i].Start > at {
			return damaged(lv.m.name(), "page %#x is in no run of a parent", at)
		}
		run := runs[i]
		part := memory.Range{Start: at, Pages: (min(run.End(), r.End()) - at) / memory.PageSize}
		switch {
		case run.Flags&PageParent != 0:
			if err := trace(chain[1:], part, f); err != nil {
				return err
			}
		case run.Flags&PagePresent != 0:
			f(part, lv.firsts[i]+(at-run.Start)/memory.PageSize, lv.file)
		default:
			return fmt.Errorf("%s: %d pages at %#x: %w", lv.m.name(), part.Pages, at, ErrElsewhere)
		}
		at = part.End()
	}
	return nil
}

func (s *LazySpace) add(r memory.Range, slot uint64) {
	if k := len(s.Runs) - 1; k >= 0 && s.Runs[k].End() == r.Start && s.Runs[k].Slot+s.Runs[k].Pages == slot {
		s.Runs[k].Pages += r.Pages
		return
	}
	s.Runs = append(s.Runs, LazyRun{r, slot})
}

// read notes pages that CRIU reads.
func (f *PageFile) read(slot, pages uint64) {
	f.eager = append(f.eager, memory.Range{Start: (slot - f.First) * memory.PageSize, Pages: pages})
}

// NeedsStage tells whether CRIU must be given other page maps than those of the set, because it would read at once what can
// come later, in a parent or written without a thought of laziness, or leave out what must not.
func (l *Lazy) NeedsStage() bool { return len(l.maps) > 0 }

// Stage makes dir, a set for CRIU to restore from: links to the set's files, and page maps that leave the fed memory out.
func (l *Lazy) Stage(dir string) error {
	if err := l.stage(dir); err != nil {
		return fmt.Errorf("stage images: %w", err)
	}
	return nil
}

func (l *Lazy) stage(dir string) error {
	names, err := list(l.set.Dir)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	// CRIU follows the links from within the container's root, too, where no absolute one leads anywhere.
	from, err := relative(dir, l.set.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if len(l.set.Parents) > 0 {
		parent, err := relative(dir, l.set.Parents[0].Dir)
		if err != nil {
			return err
		}
		if err := os.Symlink(parent, filepath.Join(dir, parentName)); err != nil {
			return err
		}
	}
	for _, m := range l.maps {
		if err := m.Write(dir); err != nil { // in the place of the link
			return err
		}
	}
	return nil
}

// relative is the way from one directory to another, without a link on it.
func relative(from, to string) (string, error) {
	ends := [2]string{from, to}
	for i, end := range ends {
		path, err := filepath.EvalSymlinks(end)
		if err == nil {
			ends[i], err = filepath.Abs(path)
		}
		if err != nil {
			return "", err
		}
	}
	return filepath.Rel(ends[0], ends[1])
}

// VerifyEager is VerifyPages of what CRIU itself reads; whoever feeds the rest compares that.
func (l *Lazy) VerifyEager(ctx context.Context) error {
	eager := map[*Pages]map[int64]bool{}
	for _, f := range l.Files {
		if f.Known == nil {
			continue
		}
		if eager[f.Known] == nil {
			eager[f.Known] = map[int64]bool{}
		}
		for _, r := range f.eager {
			for chunk := int64(r.Start) / f.Known.Chunk; chunk <= int64(r.End()-1)/f.Known.Chunk; chunk++ {
				eager[f.Known][chunk] = true
			}
		}
	}
	return l.set.verifyPages(ctx, func(p *Pages, chunk int64) bool {
		chunks, ofProcess := eager[p]
		return !ofProcess || chunks[chunk] // shared memory is none of a process's files
	})
}
