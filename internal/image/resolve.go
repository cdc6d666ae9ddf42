package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/livemigrate/migrate/internal/memory"
)

// Memory is the memory of a stopped process by address, like /proc/PID/mem.
type Memory interface {
	io.ReaderAt
	io.Closer
}

// Resolve ends a dump that left memory out, lazily or by the claims of WriteClaims, while its processes still stand: pages
// that a lazy restore can fetch later become PageLazy and are Left; the others (vdso, private pages of files, the pages
// that stack pointers point to, what a fork wipes) are read, from what open returns, into a new page file. The link to the
// parent goes. The maps as they are now are returned; no claim is left in dir. Large areas that are only set aside are marked as such.
func Resolve(dir string, open func(vpid int) (Memory, error)) ([]*PageMap, error) {
	maps, err := resolve(dir, open)
	if err != nil {
		return nil, fmt.Errorf("resolve claimed pages: %w", err)
	}
	return maps, nil
}

func resolve(dir string, open func(vpid int) (Memory, error)) ([]*PageMap, error) {
	maps, err := ReadPageMaps(dir)
	if err != nil {
		return nil, err
	}
	tasks, err := readTree(dir)
	if err != nil {
		return nil, err
	}
	byPid := map[int]task{}
	for _, t := range tasks {
		byPid[int(t.pid)] = t
	}
	for i, m := range maps {
		if !m.lacks() {
			continue
		}
		t, ok := byPid[m.VPid]
		if !ok {
			return nil, damaged(m.name(), "no process of that number")
		}
		if maps[i], err = m.resolve(dir, t, open); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(filepath.Join(dir, parentName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := looseReserves(dir); err != nil {
		return nil, err
	}
	return maps, CheckResolved(dir)
}

// lacks tells that pages of the map are in no file.
func (m *PageMap) lacks() bool { return slices.ContainsFunc(m.Runs, PageRun.isLacking) }

func (r PageRun) isLacking() bool { return r.Flags&PageParent != 0 || r.Flags == PageLazy }

func (m *PageMap) resolve(dir string, t task, open func(vpid int) (Memory, error)) (_ *PageMap, err error) {
	var c cutter
	if c.areas, err = readAreas(dir, m.VPid); err != nil {
		return nil, err
	}
	if c.stacks, err = stackPages(dir, t); err != nil {
		return nil, err
	}
	live, err := open(m.VPid)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, live.Close()) }()
	w, err := m.rewrite(dir)
	if err != nil {
		return nil, err
	}
	for _, run := range m.Runs {
		if !run.isLacking() {
			err = w.keep(run)
		} else {
			err = c.cut(run.Range, func(part memory.Range, lazy bool) error {
				if lazy {
					w.now.add(part, PageLazy)
					return nil
				}
				return w.fill(part, PagePresent, live)
			})
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", m.name(), err), w.discard())
		}
	}
	return w.finish()
}

// KeepPresent takes PageLazy from the runs whose pages are in a file, and writes the map anew if there were any: a lazy
// restore would leave them to a feeder, which has only what is Left. CRIU flags unreadable areas so, which it copies in any
// case.
func (m *PageMap) KeepPresent(dir string) error {
	changed := false
	for i, run := range m.Runs {
		if run.Flags&PagePresent != 0 && run.Flags&PageLazy != 0 {
			m.Runs[i].Flags &^= PageLazy
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return m.Write(dir)
}

// Fill puts the pages that are Left into the page files of dir, as PageLazy and PagePresent: the set is then whole, and
// restores with any CRIU, lazily or not. open gives a process's pages by address: the process itself, or a store.
func Fill(dir string, open func(vpid int) (Memory, error)) error {
	if err := fillAll(dir, open, nil); err != nil {
		return fmt.Errorf("fill page files: %w", err)
	}
	return nil
}

// fillAll fills over what is below, if anything.
func fillAll(dir string, open func(vpid int) (Memory, error), b *below) error {
	maps, err := ReadPageMaps(dir)
	if err != nil {
		return err
	}
	for _, m := range maps {
		if len(m.Left()) == 0 {
			continue
		}
		if err := m.fill(dir, open, b); err != nil {
			return err
		}
	}
	return nil
}

func (m *PageMap) fill(dir string, open func(vpid int) (Memory, error), b *below) (err error) {
	source, err := open(m.VPid)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	w, err := m.rewrite(dir)
	if err != nil {
		return err
	}
	var chain []*level
	if b != nil {
		chain = b.chain(m.VPid)
	}
	for _, run := range m.Runs {
		switch {
		case run.Flags != PageLazy:
			err = w.keep(run)
		case len(chain) > 0:
			err = w.fillOver(run.Range, source, b, chain)
		default:
			err = w.fill(run.Range, PageLazy|PagePresent, source)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", m.name(), err), w.discard())
		}
	}
	_, err = w.finish()
	return err
}
