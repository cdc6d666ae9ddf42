package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/memory"
)

// rewriter makes a page map and its page file anew. The page file gets a new number, and the map is replaced at one stroke
// when it is complete: no moment knows a map whose pages are another's.
type rewriter struct {
	dir      string
	was, now *PageMap
	old, new *os.File
	buffer   []byte
}

// rewriteBuffer is how much is copied at once. It is reused: fresh memory would cost more than the copy.
const rewriteBuffer = 1 << 20

func (m *PageMap) rewrite(dir string) (*rewriter, error) {
	w := &rewriter{dir: dir, was: m, buffer: make([]byte, rewriteBuffer)}
	w.now = &PageMap{VPid: m.VPid, PagesID: m.PagesID, wide: m.wide, narrow: m.narrow}
	var err error
	if w.old, err = os.Open(filepath.Join(dir, pagesName(m.PagesID))); err != nil {
		return nil, err
	}
	for err = os.ErrExist; errors.Is(err, os.ErrExist); {
		w.now.PagesID++
		path := filepath.Join(dir, pagesName(w.now.PagesID))
		w.new, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, w.old.Close())
	}
	return w, nil
}

// keep takes a run over with its pages.
func (w *rewriter) keep(run PageRun) error {
	w.now.add(run.Range, run.Flags)
	if run.Flags&PagePresent == 0 {
		return nil
	}
	return w.copy(run.Range, func(_ uint64, piece []byte) error {
		_, err := io.ReadFull(w.old, piece)
		return err
	})
}

// fill adds a run whose pages come from elsewhere.
func (w *rewriter) fill(r memory.Range, flags PageFlags, source io.ReaderAt) error {
	w.now.add(r, flags)
	return w.copy(r, func(address uint64, piece []byte) error {
		if n, err := source.ReadAt(piece, int64(address)); n < len(piece) {
			return fmt.Errorf("read %d bytes at %#x: %w", len(piece), address, err)
		}
		return nil
	})
}

func (w *rewriter) copy(r memory.Range, read func(address uint64, piece []byte) error) error {
	for at := r.Start; at < r.End(); {
		piece := w.buffer[:min(uint64(len(w.buffer)), r.End()-at)]
		if err := read(at, piece); err != nil {
			return err
		}
		if _, err := w.new.Write(piece); err != nil {
			return err
		}
		at += uint64(len(piece))
	}
	return nil
}

// finish puts what was made in the place of what there was.
func (w *rewriter) finish() (*PageMap, error) {
	if err := errors.Join(w.new.Close(), w.now.Write(w.dir)); err != nil {
		return nil, errors.Join(err, w.old.Close(), os.Remove(w.new.Name()))
	}
	return w.now, errors.Join(w.old.Close(), os.Remove(w.old.Name()))
}

func (w *rewriter) discard() error {
	return errors.Join(w.old.Close(), w.new.Close(), os.Remove(w.new.Name()))
}
