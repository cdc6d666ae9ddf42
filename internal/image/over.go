package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/livemigrate/migrate/internal/memory"
)

// A set over another: its pages are compared with those of a parent, and what is the same stays there, as PageParent. It
// does not matter how the parent came to be, nor whether somebody has followed what was written since.

// FillOver is Fill over the set that link leads to, relative to dir. A set with a page in there gets the link.
func FillOver(dir, link string, open func(vpid int) (Memory, error)) error {
	b, err := openBelow(filepath.Join(dir, link))
	if err != nil {
		return fmt.Errorf("fill page files over %q: %w", link, err)
	}
	err = fillAll(dir, open, b)
	if err == nil && b.used {
		err = os.Symlink(link, filepath.Join(dir, parentName))
	}
	if err = errors.Join(err, b.close()); err != nil {
		return fmt.Errorf("fill page files over %q: %w", link, err)
	}
	return nil
}

// CheckBelow is ErrDamaged, or another of this package's, when dir is no set that others can be made over.
func CheckBelow(dir string) error {
	if _, err := openChain(dir, false); err != nil {
		return fmt.Errorf("open parent %q: %w", dir, err)
	}
	return nil
}

// below is what a parent and its own parents have of memory.
type below struct {
	levels []map[int]*level // nearest first; their slots count from 0 in each file
	files  []pageReader
	used   bool // a page was found there
	buffer []byte
}

func openBelow(dir string) (*below, error) {
	set, err := openChain(dir, false)
	if err != nil {
		return nil, err
	}
	b := &below{buffer: make([]byte, rewriteBuffer)}
	for _, set := range append([]*Set{set}, set.Parents...) {
		maps, err := ReadPageMaps(set.Dir)
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
		byPid := map[int]*level{}
		for _, m := range maps {
			file, err := set.openPages(pagesName(m.PagesID))
			if err != nil {
				return nil, errors.Join(err, b.close())
			}
			byPid[m.VPid] = &level{m: m, file: len(b.files), firsts: m.firsts(0)}
			b.files = append(b.files, file)
		}
		b.levels = append(b.levels, byPid)
	}
	return b, nil
}

func (b *below) close() error {
	var err error
	for _, f := range b.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// chain is what the sets have of a process, which may be younger than the older ones.
func (b *below) chain(vpid int) []*level {
	var chain []*level
	for _, byPid := range b.levels {
		lv := byPid[vpid]
		if lv == nil {
			break
		}
		chain = append(chain, lv)
	}
	return chain
}

// each calls f for what there is of a range, with the bytes.
func (b *below) each(chain []*level, r memory.Range, f func(part memory.Range, data []byte)) error {
	if len(chain) == 0 {
		return nil
	}
	runs := chain[0].m.Runs
	for i := sort.Search(len(runs), func(i int) bool { return runs[i].End() > r.Start }); i < len(runs) && runs[i].Start < r.End(); i++ {
		if runs[i].Flags&(PagePresent|PageParent) == 0 {
			continue // only where the process is
		}
		start := max(r.Start, runs[i].Start)
		var failed error
		err := trace(chain, memory.Range{Start: start, Pages: (min(r.End(), runs[i].End()) - start) / memory.PageSize},
			func(part memory.Range, slot uint64, file int) {
				data := b.buffer[:part.Bytes()]
				if _, err := b.files[file].ReadAt(data, int64(slot)*memory.PageSize); err != nil {
					failed = errors.Join(failed, err)
					return
				}
				f(part, data)
			})
		if err := errors.Join(err, failed); err != nil {
			return err
		}
	}
	return nil
}

// fillOver is fill, except for the pages that are the same below.
func (w *rewriter) fillOver(r memory.Range, source io.ReaderAt, b *below, chain []*level) error {
	return w.copyIf(r, source, func(piece memory.Range, data []byte) ([]bool, error) {
		same := make([]bool, piece.Pages)
		err := b.each(chain, piece, func(part memory.Range, old []byte) {
			first := (part.Start - piece.Start) / memory.PageSize
			for i := range part.Pages {
				at := (first + i) * memory.PageSize
				if bytes.Equal(data[at:at+memory.PageSize], old[i*memory.PageSize:(i+1)*memory.PageSize]) {
					same[first+i], b.used = true, true
				}
			}
		})
		return same, err
	})
}

// copyIf writes the pages of a range that are not the same as others, and adds runs of both.
func (w *rewriter) copyIf(r memory.Range, source io.ReaderAt, compare func(piece memory.Range, data []byte) (same []bool, err error)) error {
	for at := r.Start; at < r.End(); {
		data := w.buffer[:min(uint64(len(w.buffer)), r.End()-at)]
		if n, err := source.ReadAt(data, int64(at)); n < len(data) {
			return fmt.Errorf("read %d bytes at %#x: %w", len(data), at, err)
		}
		same, err := compare(memory.Range{Start: at, Pages: uint64(len(data)) / memory.PageSize}, data)
		if err != nil {
			return err
		}
		for i := 0; i < len(same); {
			end := i
			for end < len(same) && same[end] == same[i] {
				end++
			}
			run := memory.Range{Start: at + uint64(i)*memory.PageSize, Pages: uint64(end - i)}
			if same[i] {
				w.now.add(run, PageParent)
			} else {
				w.now.add(run, PageLazy|PagePresent)
				if _, err := w.new.Write(data[i*memory.PageSize : end*memory.PageSize]); err != nil {
					return err
				}
			}
			i = end
		}
		at += uint64(len(data))
	}
	return nil
}
