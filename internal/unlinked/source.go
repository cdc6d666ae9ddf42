package unlinked

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// ErrNamed: a file that had no name has one now. It is a file of the tree; look again.
var ErrNamed = errors.New("a deleted file has a name again")

// SourceOptions say whose files are carried.
type SourceOptions struct {
	Init      int                   // process whose mounts are the container's
	Processes func() ([]int, error) // all of the container's
	Roots     []fs.Stat             // root directories of mounts that travel; the peer has them in the same order
	Least     int64                 // bytes on the disk from which on it is worth it
	Log       *slog.Logger          // nil discards
}

// Source is the side of the container. One call at a time. The caller closes it.
type Source struct {
	o     *SourceOptions
	log   *slog.Logger
	files []*file // those without an open file are dropped
	most  int64   // bytes of memory that digests may take, by the sizes of the files when they are found
	few   int64   // bytes on the disk of files that are sooner read than looked after
	sent  bool    // the last difference is
	doubt bool    // whether all that was sent has arrived
}

// file is one that is carried.
type file struct {
	index     int
	file      *os.File // nil: nobody has it open any more
	id        inode
	places    []Place
	announced int // places that the peer was told of
	known     int // that it knows
	refused   bool
	brought   bool // all of it was sent once
	complete  bool // and has arrived
	writable  bool // at the last look
	digests   digests
	memory    int64 // that they may take

	scanned time.Time // before the last pass
	before  fs.Stat   // at its beginning
}

// Stats are what one pass did.
type Stats struct {
	Files   int   // that are carried
	Read    int64 // bytes
	Sent    int64 // bytes of them
	Skipped int   // files that nobody can have written to
	Elapsed time.Duration
}

// fewBytes are read as fast as the descriptors and mappings of some hundred processes are looked at.
const fewBytes = 64 << 20

// mostDigests is enough for 2 TB. The files beyond it are left to CRIU, which takes 4 GiB of one.
const mostDigests = 256 << 20

// Open finds the files. That there are none is no error.
func Open(o *SourceOptions) (*Source, error) {
	s := &Source{o: o, log: o.Log, few: fewBytes, most: mostDigests}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.Look(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Look finds files that are new, and gives up those that nobody has open any more.
func (s *Source) Look() error {
	found, err := s.find()
	if err != nil {
		return err
	}
	for _, f := range s.files {
		if f.file == nil {
			continue
		}
		seen := found[f.id]
		delete(found, f.id)
		if seen == nil || seen.odd {
			if err := f.drop(); err != nil {
				return err
			}
			continue
		}
		f.writable = seen.writable
		for _, p := range seen.places {
			if !slices.ContainsFunc(f.places, func(have Place) bool { return have.Mount == p.Mount }) {
				f.places = append(f.places, p)
			}
		}
	}
	fresh := make([]*sighting, 0, len(found))
	for _, seen := range found {
		if !seen.odd {
			fresh = append(fresh, seen)
		}
	}
	slices.SortFunc(fresh, func(a, b *sighting) int { return cmp.Compare(b.stat.Blocks, a.stat.Blocks) })
	var memory int64
	for _, f := range s.files {
		memory += f.memory
	}
	for _, seen := range fresh {
		if len(s.files) == MostFiles {
			break
		}
		if memory += digestMemory(&seen.stat); memory > s.most {
			s.log.Info("a deleted file is left to CRIU: the digests of all would take too much memory", "path", seen.places[0].Path)
			memory -= digestMemory(&seen.stat)
			continue
		}
		if err := process.Gone(s.add(seen)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Source) find() (map[inode]*sighting, error) {
	mounts, err := mounts(s.o.Init, s.o.Roots)
	if err != nil {
		return nil, fmt.Errorf("find deleted files: %w", err) // its init has ended, perhaps
	}
	pids, err := s.o.Processes()
	if err != nil {
		return nil, err
	}
	found, err := find(pids, mounts, s.o.Least)
	if err != nil {
		return nil, fmt.Errorf("find deleted files: %w", err)
	}
	return found, nil
}

// add opens a file: from then on no other can have its inode.
func (s *Source) add(seen *sighting) error {
	opened, err := fs.OpenLink(seen.link)
	if err != nil {
		return err
	}
	st, err := fs.StatFile(opened)
	if err != nil || !st.Same(&seen.stat) || st.Nlink > 0 { // its descriptor was used again
		return errors.Join(err, opened.Close())
	}
	s.files = append(s.files, &file{
		index: len(s.files), file: opened, id: inode{st.Dev, st.Ino}, places: seen.places, writable: seen.writable, digests: make(digests), memory: digestMemory(&st),
	})
	return nil
}

func (f *file) drop() error {
	err := f.file.Close()
	f.file, f.digests, f.memory = nil, nil, 0
	return err
}

// Bytes is what the files take on the disk.
func (s *Source) Bytes() uint64 {
	var sum uint64
	for _, bytes := range s.Inodes() {
		sum += bytes
	}
	return sum
}

// Writable is what those take on the disk that somebody can write to: all of that is read again by Delta.
func (s *Source) Writable() uint64 {
	var sum uint64
	all := s.Inodes()
	for _, f := range s.files {
		if f.writable {
			sum += all[[2]uint64{f.id.dev, f.id.number}]
		}
	}
	return sum
}

// Inodes are the files, by device and inode, and what each takes on the disk.
func (s *Source) Inodes() map[[2]uint64]uint64 {
	all := make(map[[2]uint64]uint64)
	for _, f := range s.files {
		if f.file == nil || f.refused {
			continue
		}
		if st, err := fs.StatFile(f.file); err == nil {
			all[[2]uint64{f.id.dev, f.id.number}] = uint64(st.Blocks) * 512
		}
	}
	return all
}

// Carried are the places of the files that the peer has, up to what Delta will bring.
func (s *Source) Carried() []Place {
	var all []Place
	for _, f := range s.files {
		if f.file != nil && f.complete && !f.refused {
			all = append(all, f.places[:f.known]...)
		}
	}
	return all
}

// Refused are the files that the peer's filesystem can't have, by what they were called, and what each takes on the disk.
func (s *Source) Refused() map[string]uint64 {
	all := make(map[string]uint64)
	for _, f := range s.files {
		if f.file == nil || !f.refused {
			continue
		}
		if st, err := fs.StatFile(f.file); err == nil {
			all[f.places[0].Path] = uint64(st.Blocks) * 512
		}
	}
	return all
}

// Pass looks again, and brings the peer up to date while the container runs. When it returns nil the peer has all of it; after
// an error it may be called again over another channel, and sends what the peer may lack once more.
func (s *Source) Pass(ctx context.Context, ch Channel) (Stats, error) {
	p := s.begin(ch, 1)
	if err := s.Look(); err != nil { // the files that are known are open here
		s.log.Warn("deleted files can't be looked for again", "error", err)
	}
	if err := p.announce(ctx); err != nil {
		return p.stats, err
	}
	for _, f := range s.files {
		if f.file == nil || f.refused {
			continue
		}
		if err := p.bring(ctx, f); err != nil {
			return p.stats, fmt.Errorf("send deleted file %s: %w", f.places[0].Path, err)
		}
	}
	if err := p.confirm(ctx); err != nil {
		return p.stats, err
	}
	return p.end(ctx)
}

// Delta sends the rest of what Carried named. The container stands still. ErrNamed when one of the files has a name again; no
// use of the Source after that.
func (s *Source) Delta(ctx context.Context, ch Channel) (Stats, error) {
	p := s.begin(ch, frozenWorkers())
	if s.sent {
		return p.end(ctx)
	}
	now, err := s.writers()
	if err != nil {
		return p.stats, err
	}
	for _, f := range s.files {
		if f.file == nil || f.refused || !f.complete {
			continue
		}
		st, err := fs.StatFile(f.file)
		if err == nil && st.Nlink > 0 {
			err = ErrNamed
		}
		if err == nil && now != nil && !p.doubt && f.untouched(&st, now[f.id]) {
			p.stats.Skipped++
			continue
		}
		if err == nil {
			err = p.bring(ctx, f)
		}
		if err != nil {
			return p.stats, fmt.Errorf("send deleted file %s: %w", f.places[0].Path, err)
		}
	}
	s.sent = true
	return p.end(ctx)
}

// writers looks again, if there are files for which it matters, at what can be written to; nil if there are none.
func (s *Source) writers() (map[inode]bool, error) {
	var unread int64
	for _, f := range s.files {
		if f.file != nil && f.complete && !f.writable {
			unread += f.before.Blocks * 512
		}
	}
	if unread <= s.few {
		return nil, nil
	}
	now := make(map[inode]bool)
	pids, err := s.o.Processes()
	if err != nil {
		return nil, err
	}
	found, err := find(pids, nil, 0)
	for id, seen := range found {
		now[id] = seen.writable
	}
	return now, err
}

// tick is more than the clock of a filesystem's times may lag.
const tick = 100 * time.Millisecond

// untouched tells that nobody can have written to the file since the last pass read it: then and now nobody had it open for
// that, and its change time is an older one. A file in memory, or what lies on one, tells no times of writes through mappings.
func (f *file) untouched(st *fs.Stat, writable bool) bool {
	since := f.scanned.Add(-tick)
	return !f.writable && !writable && st.Unchanged(&f.before) && keepsTimes(f.file) &&
		st.Ctime.Before(fs.Time{Sec: since.Unix(), Nsec: uint32(since.Nanosecond())})
}

func keepsTimes(f *os.File) bool {
	const ext, xfs, f2fs = 0xef53, 0x58465342, 0xf2f52010 // statfs(2)
	kind, _, err := fs.Kind(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return err == nil && (kind == ext || kind == xfs || kind == f2fs)
}

// Close gives the files up.
func (s *Source) Close() error {
	var err error
	for _, f := range s.files {
		if f.file != nil {
			err = errors.Join(err, f.drop())
		}
	}
	return err
}
