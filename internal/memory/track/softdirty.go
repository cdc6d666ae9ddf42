package track

import (
	"github.com/livemigrate/migrate/internal/sys/pagemap"
)

// softDirty watches by the bits that the kernel sets in page tables when it notes a write. They are looked at and cleared
// by two calls, so that the tasks must not run in between. What is mapped anew is dirty as a whole, which exec and mremap
// make use of; what was born by fork has its parent's bits, which mean nothing to us: it is told of as new.
type softDirty struct{ pid int }

func (w softDirty) look(l *lister, m *pagemap.Map, a *areas, arm bool) (*finding, error) {
	f := &finding{}
	for _, span := range l.stretches(a) {
		if err := l.walk(m, span, func(start, end uint64, dirty bool) {
			f.populated = appendRun(f.populated, start, end)
			if dirty {
				f.dirty = appendRun(f.dirty, start, end)
			}
		}); err != nil {
			return nil, err
		}
	}
	if arm {
		return f, pagemap.ClearSoftDirty(w.pid)
	}
	return f, nil
}

func (softDirty) watches(*pagemap.Map) bool { return true }

func (softDirty) close() error { return nil }
