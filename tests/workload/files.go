package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// files is a directory under constant change, and what it should hold.
type files struct {
	mu      sync.Mutex
	dir     string
	random  *rand.ChaCha8
	want    map[string]content // by name beneath dir
	log     *os.File           // open all the time, appended to
	logged  []byte
	orphan  *os.File // open and deleted
	orphans []byte
	renamed *os.File // open, and deleted by the name that it was opened by, but not by another one
	failed  error    // the first operation that failed
}

type content struct {
	data []byte
	mode fs.FileMode
	link string // a symbolic link's target
}

const (
	names    = 60
	maxBytes = 48 << 10
)

func startFiles(dir string) (*files, error) {
	f := &files{dir: dir, random: rand.NewChaCha8([32]byte{2}), want: map[string]content{}}
	for _, sub := range []string{"", "x", "y/z"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	var err error
	if f.log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	if f.orphan, err = os.OpenFile(filepath.Join(dir, "orphan"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	f.orphans = f.bytes(5000)
	if _, err := f.orphan.Write(f.orphans); err != nil {
		return nil, err
	}
	if err := os.Remove(f.orphan.Name()); err != nil {
		return nil, err
	}
	if err := f.startRenamed(); err != nil {
		return nil, err
	}
	go f.churn()
	return f, nil
}

const linked = "linked" // the other name of renamed

func (f *files) startRenamed() (err error) {
	path := filepath.Join(f.dir, "renamed")
	if f.renamed, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := os.Link(path, filepath.Join(f.dir, linked)); err != nil {
		return err
	}
	return os.Remove(path)
}

// checkRenamed writes through the descriptor and reads through the name: they are one file still.
func (f *files) checkRenamed() error {
	data := f.bytes(100)
	if _, err := f.renamed.WriteAt(data, 0); err != nil {
		return fmt.Errorf("write to the file of two names: %w", err)
	}
	return same(filepath.Join(f.dir, linked), data)
}

// churn changes one thing every two milliseconds.
func (f *files) churn() {
	for {
		time.Sleep(2 * time.Millisecond)
		f.mu.Lock()
		if err := f.step(); err != nil && f.failed == nil {
			f.failed = err
		}
		f.mu.Unlock()
	}
}

func (f *files) step() error {
	line := fmt.Appendf(nil, "%d %x\n", len(f.logged), f.bytes(8))
	if _, err := f.log.Write(line); err != nil {
		return err
	}
	f.logged = append(f.logged, line...)

	name := f.name()
	path := filepath.Join(f.dir, name)
	had, there := f.want[name]
	switch f.random.Uint64() % 8 {
	case 0, 1, 2: // a file that replaces what was there, as careful programs write
		return f.replace(name)
	case 3: // written in place
		if !there || had.link != "" {
			return f.replace(name)
		}
		at := int(f.random.Uint64() % uint64(len(had.data)))
		patch := f.bytes(min(1000, len(had.data)-at))
		copy(had.data[at:], patch)
		return writeAt(path, patch, int64(at))
	case 4: // cut
		if !there || had.link != "" {
			return nil
		}
		had.data = had.data[:len(had.data)/2+1]
		f.want[name] = had
		return os.Truncate(path, int64(len(had.data)))
	case 5: // moved elsewhere
		to := f.name()
		if !there || to == name {
			return nil
		}
		delete(f.want, name)
		f.want[to] = had
		return os.Rename(path, filepath.Join(f.dir, to))
	case 6: // gone
		if !there {
			return nil
		}
		delete(f.want, name)
		return os.Remove(path)
	default: // a link, to nothing as often as to something
		if there {
			return nil
		}
		target := f.name()
		f.want[name] = content{link: target}
		return os.Symlink(target, path)
	}
}

func (f *files) replace(name string) error {
	modes := []fs.FileMode{0o600, 0o640, 0o644, 0o755}
	c := content{
		data: f.bytes(1 + int(f.random.Uint64()%maxBytes)),
		mode: modes[f.random.Uint64()%uint64(len(modes))],
	}
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path+".new", c.data, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(path+".new", c.mode); err != nil {
		return err
	}
	f.want[name] = c
	return os.Rename(path+".new", path)
}

func (f *files) check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return f.failed
	}
	seen := 0
	err := filepath.WalkDir(f.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, _ := filepath.Rel(f.dir, path)
		if name == "log" {
			return same(path, f.logged)
		}
		if name == linked {
			return f.checkRenamed()
		}
		seen++
		want, ok := f.want[name]
		if !ok {
			return fmt.Errorf("%s should not be there", name)
		}
		if want.link != "" {
			if target, err := os.Readlink(path); err != nil || target != want.link {
				return fmt.Errorf("%s leads to %q, not %q (%w)", name, target, want.link, err)
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm() != want.mode {
			return fmt.Errorf("%s has mode %o, not %o", name, info.Mode().Perm(), want.mode)
		}
		return same(path, want.data)
	})
	if err != nil {
		return err
	}
	if seen != len(f.want) {
		return fmt.Errorf("%d files are there, not %d", seen, len(f.want))
	}
	kept := make([]byte, len(f.orphans))
	if _, err := f.orphan.ReadAt(kept, 0); err != nil {
		return fmt.Errorf("read the deleted file: %w", err)
	}
	if !bytes.Equal(kept, f.orphans) {
		return errors.New("the deleted file changed")
	}
	return nil
}

func same(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s differs (%d bytes, not %d)", path, len(got), len(want))
	}
	return nil
}

func writeAt(path string, data []byte, at int64) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, at)
	return errors.Join(err, file.Close())
}

func (f *files) name() string {
	n := f.random.Uint64() % names
	return filepath.Join([]string{"", "x", "y/z"}[n%3], fmt.Sprintf("f%d", n))
}

func (f *files) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = f.random.Read(b)
	return b
}
