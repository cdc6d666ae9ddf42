package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// deleted are files that are open, or mapped, and have no name, written without a pause by two processes of which one is a
// program without a name itself.
type deleted struct {
	mu     sync.Mutex
	random *rand.ChaCha8
	files  []*nameless
	wrote  uint64
	failed error // the first operation that failed
}

// nameless is one of them, and what it should be.
type nameless struct {
	path   string
	file   *os.File // nil: nobody has it open
	other  *os.File // a second descriptor of it
	mapped []byte
	scribe *scribe // that writes to it
	still  bool    // nobody does
	log    bool    // it grows
	size   int64
	pages  map[int64][]byte // by page number; all others are zeros
	spots  []int64          // pages that are written
	was    unix.Stat_t
}

// startDeleted makes files of each kind in every directory; the plain one has so many megabytes.
func startDeleted(args []string) (*deleted, error) {
	if len(args) < 2 {
		return nil, errors.New("want a size in MB and directories")
	}
	megabytes, err := strconv.ParseInt(args[0], 10, 32)
	if err != nil {
		return nil, err
	}
	d := &deleted{random: rand.NewChaCha8([32]byte{3})}
	for _, dir := range args[1:] {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		for _, kind := range []func(dir string) error{
			func(dir string) error { return d.plain(dir, megabytes<<20) }, d.log, d.still, d.mapped, d.shared, d.sparse,
		} {
			if err := kind(dir); err != nil {
				return nil, fmt.Errorf("make deleted files in %s: %w", dir, err)
			}
		}
	}
	go d.churn()
	return d, os.WriteFile(filepath.Join(args[len(args)-1], "ready"), []byte("ready"), 0o644)
}

// create makes a file with data in its first pages, and takes its name away.
func (d *deleted) create(dir, name string, data int64, flags int) (*nameless, error) {
	f := &nameless{path: filepath.Join(dir, name), pages: make(map[int64][]byte)}
	var err error
	if f.file, err = os.OpenFile(f.path, os.O_CREATE|os.O_EXCL|flags, 0o640); err != nil {
		return nil, err
	}
	for page := range data / pageSize {
		if err := f.write(page, d.page()); err != nil {
			return nil, err
		}
		f.spots = append(f.spots, page)
	}
	f.size = data
	d.files = append(d.files, f)
	if f.other, err = os.Open(f.path); err != nil {
		return nil, err
	}
	if _, err := f.other.Seek(12345, io.SeekStart); err != nil {
		return nil, err
	}
	return f, errors.Join(f.file.Chmod(0o751), os.Remove(f.path))
}

func (d *deleted) page() []byte {
	page := make([]byte, pageSize)
	_, _ = d.random.Read(page) // never fails
	return page
}

func (d *deleted) plain(dir string, size int64) error {
	_, err := d.create(dir, "plain", size, os.O_RDWR)
	return err
}

func (d *deleted) log(dir string) error {
	f, err := d.create(dir, "log", 0, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return err
	}
	f.log = true
	for range 400 {
		if err := f.append(d.page()); err != nil {
			return err
		}
	}
	return nil
}

// still is read only, and so old that its times tell that nobody wrote to it.
func (d *deleted) still(dir string) error {
	f, err := d.create(dir, "still", 2<<20, os.O_RDWR)
	if err != nil {
		return err
	}
	old := []unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 1e9, Nsec: 123456789}}
	err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.file.Fd()), old, 0)
	err = errors.Join(err, f.file.Close())
	f.file, f.still = nil, true
	return errors.Join(err, unix.Fstat(int(f.other.Fd()), &f.was))
}

// mapped is written through a mapping, which leaves no trace in the times of the file.
func (d *deleted) mapped(dir string) error {
	f, err := d.create(dir, "mapped", 2<<20, os.O_RDWR)
	if err != nil {
		return err
	}
	f.mapped, err = unix.Mmap(int(f.file.Fd()), 0, int(f.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	err = errors.Join(err, f.file.Close(), f.other.Close())
	f.file, f.other = nil, nil
	return err
}

// shared is written by another process, a program whose file is deleted.
func (d *deleted) shared(dir string) error {
	f, err := d.create(dir, "shared", 2<<20, os.O_RDWR)
	if err != nil {
		return err
	}
	program := filepath.Join(dir, "program")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		return err
	}
	if f.scribe, err = startScribe(program, f.file); err != nil {
		return err
	}
	return os.Remove(program)
}

// sparse is larger than CRIU takes, but for its holes.
func (d *deleted) sparse(dir string) error {
	f, err := d.create(dir, "sparse", 1<<20, os.O_RDWR)
	if err != nil {
		return err
	}
	f.size = 5<<30 + 4321
	if err := f.file.Truncate(f.size); err != nil {
		return err
	}
	for page := int64(512); page < f.size/pageSize; page += 4999 {
		f.spots = append(f.spots, page)
		if err := f.write(page, d.page()); err != nil {
			return err
		}
	}
	return nil
}

func (f *nameless) write(page int64, data []byte) error {
	f.pages[page] = data
	if f.mapped != nil {
		copy(f.mapped[page*pageSize:], data)
		return nil
	}
	_, err := f.file.WriteAt(data, page*pageSize)
	return err
}

// append writes pages, so that the map of them serves for this, too.
func (f *nameless) append(data []byte) error {
	f.pages[f.size/pageSize] = data
	f.size += int64(len(data))
	_, err := f.file.Write(data)
	return err
}

func (f *nameless) punch(page int64) error {
	delete(f.pages, page)
	return unix.Fallocate(int(f.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, page*pageSize, pageSize)
}

func (d *deleted) churn() {
	for d.step() {
		time.Sleep(time.Millisecond)
	}
}

func (d *deleted) step() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[d.random.Uint64()%uint64(len(d.files))]
	var err error
	switch {
	case f.still:
	case f.log:
		err = f.append(d.page())
	default:
		page := f.spots[d.random.Uint64()%uint64(len(f.spots))]
		switch {
		case f.scribe != nil:
			f.pages[page], err = f.scribe.write(page, d.random.Uint64())
		case f.mapped == nil && d.random.Uint64()%4 == 0:
			err = f.punch(page)
		default:
			err = f.write(page, d.page())
		}
	}
	d.wrote++
	if err != nil {
		d.failed = fmt.Errorf("write %s: %w", f.path, err)
	}
	return d.failed == nil
}

func (d *deleted) count() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wrote
}

func (d *deleted) check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.failed
	for _, f := range d.files {
		if differs := f.check(); differs != nil {
			err = errors.Join(err, fmt.Errorf("deleted file %s: %w", f.path, differs))
		}
	}
	return err
}

func (f *nameless) check() error {
	if f.mapped != nil {
		for page, want := range f.pages {
			if !bytes.Equal(f.mapped[page*pageSize:(page+1)*pageSize], want) {
				return fmt.Errorf("its page %d in memory is another", page)
			}
		}
		return nil
	}
	if err := f.checkKind(f.other); err != nil {
		return err
	}
	if at, err := f.other.Seek(0, io.SeekCurrent); err != nil || at != 12345 {
		return fmt.Errorf("the second descriptor is at %d: %w", at, err)
	}
	if f.file != nil {
		if err := f.checkKind(f.file); err != nil {
			return err
		}
	}
	if f.scribe != nil {
		if err := f.scribe.check(filepath.Join(filepath.Dir(f.path), "program")); err != nil {
			return err
		}
	}
	return f.checkContent()
}

// checkKind looks at what a descriptor leads to.
func (f *nameless) checkKind(file *os.File) error {
	var st, other unix.Stat_t
	if err := errors.Join(unix.Fstat(int(file.Fd()), &st), unix.Fstat(int(f.other.Fd()), &other)); err != nil {
		return err
	}
	if st.Ino != other.Ino || st.Nlink != 0 || st.Size != f.size || st.Mode != unix.S_IFREG|0o751 {
		return fmt.Errorf("it is %+v, of %d bytes, and the other descriptor %+v", st, f.size, other)
	}
	if f.still && st.Mtim != f.was.Mtim {
		return fmt.Errorf("its time is %v, and was %v", st.Mtim, f.was.Mtim)
	}
	if most := int64(len(f.pages)+len(f.spots))*8 + 4096; st.Blocks > most {
		return fmt.Errorf("it has %d blocks: its holes are filled", st.Blocks)
	}
	if link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd())); err != nil || link != f.path+" (deleted)" {
		return fmt.Errorf("it is called %q: %w", link, err)
	}
	return nil
}

func (f *nameless) checkContent() error {
	page := make([]byte, pageSize)
	zero := make([]byte, pageSize)
	for n, want := range f.pages {
		if _, err := f.other.ReadAt(page, n*pageSize); err != nil || !bytes.Equal(page, want) {
			return fmt.Errorf("page %d is another: %w", n, err)
		}
	}
	for at := int64(0); at < f.size; at += pageSize { // what nobody wrote
		data, err := unix.Seek(int(f.other.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		at = data / pageSize * pageSize
		if f.pages[at/pageSize] != nil {
			continue
		}
		n, err := f.other.ReadAt(page, at)
		if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(page[:n], zero[:n]) {
			return fmt.Errorf("page %d is not zero: %w", at/pageSize, err)
		}
	}
	_, err := f.other.Seek(12345, io.SeekStart)
	return err
}

// scribe is another process that has a file.
type scribe struct {
	pid     int
	out     io.Writer
	answers *bufio.Reader
}

func startScribe(program string, file *os.File) (*scribe, error) {
	cmd := exec.Command(program, "member", "scribe")
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &scribe{cmd.Process.Pid, out, bufio.NewReader(in)}, nil
}

// write has it write a page that a number gives.
func (s *scribe) write(page int64, seed uint64) ([]byte, error) {
	if _, err := fmt.Fprintln(s.out, page, seed); err != nil {
		return nil, err
	}
	if _, err := s.answers.ReadString('\n'); err != nil {
		return nil, err
	}
	return seeded(seed), nil
}

func (s *scribe) check(program string) error {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.pid))
	if err != nil || strings.TrimSuffix(link, " (deleted)") != program {
		return fmt.Errorf("the other process is %q: %w", link, err)
	}
	return nil
}

func seeded(seed uint64) []byte {
	page := make([]byte, pageSize)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}).Read(page) // never fails
	return page
}

// scribeWrites is what the other process does with a line.
func scribeWrites() func(line string) (string, error) {
	const inherited = 3 // ExtraFiles
	file := os.NewFile(inherited, "shared")
	return func(line string) (string, error) {
		var page int64
		var seed uint64
		if _, err := fmt.Sscan(line, &page, &seed); err != nil {
			return "", err
		}
		_, err := file.WriteAt(seeded(seed), page*pageSize)
		return "", err
	}
}
