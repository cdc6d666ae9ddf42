package unlinked

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// That the container's init has ended is an error that says so.
func TestAnInitThatHasEnded(t *testing.T) {
	_, err := Open(&SourceOptions{Init: 1<<22 + 5, Processes: func() ([]int, error) { return []int{os.Getpid()}, nil }, Roots: []fs.Stat{{}}, Least: 1})
	if !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "%!") {
		t.Errorf("got %v", err)
	}
}

// A look that fails costs a pass what is new; the difference, which decides by it, is stricter.
func TestAPassGoesOnWithWhatIsKnown(t *testing.T) {
	dir := t.TempDir()
	f := deleted(t, dir, "known", 1<<20)
	p := newPair(t, dir)
	p.pass(p.source.Pass)
	writeAt(t, f, 77, "changed")
	p.source.o.Processes = func() ([]int, error) { return nil, syscall.EIO }
	if stats := p.pass(p.source.Pass); stats.Sent == 0 {
		t.Errorf("nothing was sent: %+v", stats)
	}
	p.same(f)
	p.source.few, p.source.files[0].writable = 0, false
	here, _ := lanes()
	if _, err := p.source.Delta(t.Context(), here); !errors.Is(err, syscall.EIO) {
		t.Errorf("the difference: %v", err)
	}
}

// A few bytes are read sooner than every process is looked at.
func TestAFewBytesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	f := deleted(t, dir, "still", 1<<20)
	only, err := fs.OpenLink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	must(t, errors.Join(err, f.Close()))
	defer only.Close()
	time.Sleep(2 * tick)
	p := newPair(t, dir)
	_ = deleted(t, dir, "open", 1<<20)
	must(t, p.source.Look())
	if all, writable := p.source.Bytes(), p.source.Writable(); writable == 0 || writable >= all {
		t.Errorf("%d of %d bytes can be written to", writable, all)
	}
	p.pass(p.source.Pass)
	p.source.o.Processes = func() ([]int, error) { return nil, errors.New("looked at the processes") }
	if stats := p.pass(p.source.Delta); stats.Skipped != 0 || stats.Read != 2<<20 || stats.Sent != 0 {
		t.Errorf("the difference: %+v", stats)
	}
}

// What is open more often than a file can have links is CRIU's.
func TestAFileThatIsOpenTooOftenIsLeft(t *testing.T) {
	dir := t.TempDir()
	f := deleted(t, dir, "often", 1<<20)
	st, err := fs.StatFile(f)
	must(t, err)
	link := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	id, err := fs.MountOf(int(f.Fd()))
	must(t, err)
	look := &finder{map[int]mount{id: {dev: st.Dev}}, 1, make(map[inode]*sighting), make(map[uint64]bool)}
	for range mostOpens {
		must(t, look.see(link, f.Name()+suffix, false))
	}
	s := look.found[inode{st.Dev, st.Ino}]
	if look.judge(); s.odd {
		t.Error("left, with as many as can be")
	}
	must(t, look.see(link, f.Name()+suffix, false))
	if look.judge(); !s.odd {
		t.Error("taken, with one more")
	}
}

// Files whose digests would take more memory than they may are left, and the others are not.
func TestDigestsHaveABudget(t *testing.T) {
	dir := t.TempDir()
	large := deleted(t, dir, "large", 2<<20)
	must(t, large.Truncate(64*chunkSize))
	p := newPair(t, dir)
	p.source.most = 10 * chunkMemory
	must(t, p.source.Close())
	p.source.files = nil
	small := deleted(t, dir, "small", 1<<20)
	must(t, p.source.Look())
	if len(p.source.files) != 1 || p.source.files[0].places[0].Path != small.Name() {
		t.Errorf("taken: %+v", p.source.Inodes())
	}
}
