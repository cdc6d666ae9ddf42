package unlinked

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// ErrTooMuch: more comes than this side takes.
var ErrTooMuch = errors.New("deleted files are larger than this host takes")

// Target is the side that the files come to. One call at a time. The caller closes it.
type Target struct {
	o      TargetOptions
	limit  int64 // bytes that may still come; 0: all
	ledger ledger
	roots  map[int]*fs.Dir
	files  map[int]*staged
	seen   map[seenAt]*staged // the files that there can be, by their places
	dirs   map[dirAt]*fs.Dir  // where names are
	names  []name
}

// staged is a file that is complete up to the next pass.
type staged struct {
	file   *os.File
	places []Place
}

// seenAt is how the images know a file.
type seenAt struct {
	mount int
	inode uint64
}

// dirAt is a directory beneath a root.
type dirAt struct {
	root int
	path string
}

// name is one that a file has for the moment.
type name struct {
	dir  *fs.Dir
	name string
}

// TargetOptions say where files go.
type TargetOptions struct {
	Top    string                          // directory that all roots are in, reached through one mount
	Root   func(index int) (string, error) // the directory with that index among the source's Roots, beneath Top
	Ledger string                          // file for Clear, made with the first name and removed by Close; "": none
}

// NewTarget makes one.
func NewTarget(o *TargetOptions) *Target {
	return &Target{
		o: *o, ledger: ledger{path: o.Ledger, top: o.Top},
		roots: make(map[int]*fs.Dir), files: make(map[int]*staged), dirs: make(map[dirAt]*fs.Dir),
	}
}

// Limit is how many bytes of content may come from now on, in whole pages as they lie on the disk; 0 is no limit.
func (t *Target) Limit(bytes int64) { t.limit = bytes }

// Serve takes part in one Pass or Delta and returns when the other side has said that it is over: the bytes of content. The
// error may say that the disk is full (hole.NoRoom).
func (t *Target) Serve(ctx context.Context, ch Channel) (int64, error) {
	var came int64
	buffer := make([]byte, 0, blockSize+64)
	for {
		frame, err := ch.Recv(ctx, buffer)
		if err != nil {
			return came, err
		}
		if len(frame) == 0 {
			return came, ErrMalformed
		}
		r := &reader{rest: frame[1:]}
		switch kind := frameKind(frame[0]); kind {
		case frameListed:
			err = ch.Send(ctx, t.taken())
		case frameEnd:
			return came, nil
		case frameStill:
		case frameData:
			came += span(r)
			if t.limit > 0 && came > t.limit {
				return came, ErrTooMuch
			}
			err = t.apply(kind, r)
		default:
			err = t.apply(kind, r)
		}
		if err != nil {
			return came, fmt.Errorf("take deleted files: %w", err)
		}
	}
}

// span is what the content of a frame takes on the disk: a byte takes a page.
func span(r *reader) int64 {
	const page = 4096
	ahead := &reader{rest: r.rest}
	ahead.number(MostFiles - 1)
	off := int64(ahead.number(mostSize))
	end := off + int64(len(ahead.rest))
	return (end+page-1)/page*page - off/page*page
}

// taken lists those that can't be had.
func (t *Target) taken() []byte {
	b := numbers(frameTaken)
	for index, f := range t.files {
		if f.file == nil {
			b = append(b, numbers(0, uint64(index))[1:]...)
		}
	}
	return b
}

// apply does what a frame of one file says.
func (t *Target) apply(kind frameKind, r *reader) error {
	index := int(r.number(MostFiles - 1))
	if kind == frameFile {
		size, places := int64(r.number(mostSize)), r.places()
		r.end()
		if r.err != nil {
			return r.err
		}
		return t.add(index, size, places)
	}
	if kind == frameDrop {
		r.end()
	}
	f := t.files[index]
	if f == nil && kind == frameDrop && r.err == nil { // said once more, after a link that broke
		return nil
	}
	if r.err != nil || f == nil || f.file == nil && kind != frameDrop {
		return errors.Join(ErrMalformed, r.err)
	}
	switch kind {
	case frameData:
		off := int64(r.number(mostSize))
		if r.err != nil || len(r.rest) > blockSize || off+int64(len(r.rest)) > mostSize {
			return errors.Join(ErrMalformed, r.err)
		}
		_, err := f.file.WriteAt(r.rest, off)
		return err
	case frameHole:
		off, n := int64(r.number(mostSize)), int64(r.number(blockSize))
		r.end()
		if r.err != nil || n == 0 {
			return errors.Join(ErrMalformed, r.err)
		}
		return fs.PunchHole(f.file, off, n)
	case frameAttr:
		a := r.attributes()
		r.end()
		if r.err != nil {
			return r.err
		}
		return a.set(f.file)
	case frameDrop:
		delete(t.files, index)
		t.seen = nil
		if f.file != nil {
			return f.file.Close()
		}
		return nil
	}
	return ErrMalformed
}

// add makes a file, on the filesystem where its first place is, or notes more places of one.
func (t *Target) add(index int, size int64, places []Place) error {
	t.seen = nil
	for _, p := range places {
		if _, err := t.dir(p.Root); err != nil {
			return err
		}
	}
	if f := t.files[index]; f != nil {
		f.places = places
		return nil
	}
	dir, err := t.dir(places[0].Root)
	if err != nil {
		return err
	}
	file, err := dir.Nameless()
	if err != nil && !fs.NoNameless(err) {
		return err
	}
	t.files[index] = &staged{file: file, places: places}
	if file == nil {
		return nil
	}
	return file.Truncate(size)
}

func (t *Target) dir(index int) (*fs.Dir, error) {
	if d := t.roots[index]; d != nil {
		return d, nil
	}
	path, err := t.o.Root(index)
	if err != nil {
		return nil, err
	}
	top, err := fs.OpenDir(t.o.Top)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	d, err := top.Beneath(path)
	if err == nil {
		t.roots[index] = d
	}
	return d, err
}

// set gives a file its length, and what it has beside its content.
func (a *attributes) set(f *os.File) error {
	if err := f.Truncate(a.size); err != nil {
		return err
	}
	if err := f.Chown(int(a.uid), int(a.gid)); err != nil {
		return err
	}
	return errors.Join(fs.ChmodFile(f, a.mode), fs.SetMtimeFile(f, a.mtime))
}

// Named is a file that has a name for the moment.
type Named struct {
	Place
	Now string // how the container finds it, on the same mount
}

// Name gives the file of a mount and inode of the source's one more name, until Close; nil when no such file has come. The name
// is in the directory of the one that it had, if that is still there: the restore changes the time of that in any case.
func (t *Target) Name(mount int, inode uint64) (*Named, error) {
	f := t.find(seenAt{mount, inode})
	if f == nil {
		return nil, nil
	}
	at := slices.IndexFunc(f.places, func(p Place) bool { return p.Mount == mount && p.Inode == inode })
	p := f.places[at]
	token := make([]byte, 12)
	_, _ = rand.Read(token) // never fails, by its documentation
	called := prefix + hex.EncodeToString(token)
	parent := p.parent()
	err := t.name(f.file, p.Root, parent, called)
	if err != nil { // its directory is not there
		parent = "."
		err = t.name(f.file, p.Root, parent, called)
	}
	if err != nil {
		return nil, err
	}
	return &Named{p, path.Join("/", p.Point, parent, called)}, nil
}

// name makes one, which is noted before.
func (t *Target) name(file *os.File, root int, parent, called string) error {
	dir, err := t.beneath(root, parent)
	if err != nil {
		return err
	}
	st, err := fs.StatFile(file)
	if err != nil {
		return err
	}
	at, err := t.o.Root(root)
	if err != nil {
		return err
	}
	if err := t.ledger.note(path.Join(at, parent, called), st.Ino); err != nil {
		return err
	}
	if err := dir.Name(file, called); err != nil {
		return err
	}
	t.names = append(t.names, name{dir, called})
	return nil
}

// find looks a file up: there is a name for every time that one is open.
func (t *Target) find(at seenAt) *staged {
	if t.seen == nil {
		t.seen = make(map[seenAt]*staged)
		for _, f := range t.files {
			for _, p := range f.places {
				if f.file != nil {
					t.seen[seenAt{p.Mount, p.Inode}] = f
				}
			}
		}
	}
	return t.seen[at]
}

// beneath is a directory of a root, one descriptor for all the names in it.
func (t *Target) beneath(root int, path string) (*fs.Dir, error) {
	if d := t.dirs[dirAt{root, path}]; d != nil {
		return d, nil
	}
	top, err := t.dir(root)
	if err != nil {
		return nil, err
	}
	d, err := top.Beneath(path)
	if err == nil {
		t.dirs[dirAt{root, path}] = d
	}
	return d, err
}

// parent is where the file was, seen from the mount's root.
func (p *Place) parent() string {
	rel, ok := strings.CutPrefix(path.Clean(p.Path), strings.TrimSuffix(path.Clean(p.Point), "/")+"/")
	if !ok {
		return "."
	}
	return path.Dir(rel)
}

// Settle closes the files: from here on they live by their names, and may be executed.
func (t *Target) Settle() error {
	var err error
	for index, f := range t.files {
		if f.file != nil {
			err = errors.Join(err, f.file.Close())
		}
		delete(t.files, index)
	}
	t.seen = nil
	return err
}

// Close removes what names there still are, and with them all that nobody has open. The ledger stays where one of them does.
func (t *Target) Close() error {
	err := t.Settle()
	for _, n := range t.names {
		if gone := n.dir.Unlink(n.name); !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	t.names = nil
	if err == nil {
		err = t.ledger.close()
	}
	for at, d := range t.dirs {
		err = errors.Join(err, d.Close())
		delete(t.dirs, at)
	}
	for index, d := range t.roots {
		err = errors.Join(err, d.Close())
		delete(t.roots, index)
	}
	return err
}
