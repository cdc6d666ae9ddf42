package filesync

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fanotify"
	"github.com/livemigrate/migrate/internal/sys/fs"
)

// fanLog is the change log by fanotify. It hears of the whole filesystem, through whichever mount or hard link it is changed,
// and keeps the names in directories beneath the root. A goroutine empties the kernel's queue as it fills.
//
// A directory is kept as its handle, and becomes a path only when the changes are taken: by then it may have been renamed.
type fanLog struct {
	root  *fs.Dir
	group *fanotify.Group
	log   *slog.Logger
	done  chan struct{}

	quiet     sync.Mutex // the kernel's queue is not emptied while somebody has it
	mu        sync.Mutex
	inside    map[fs.Handle]map[string]uint64 // directory -> name -> what happened
	paths     map[fs.Handle]string            // directories known to lie beneath the root, until one moves
	outside   map[fs.Handle]struct{}          // directories known to lie elsewhere, until one moves
	strangers map[fs.Handle]struct{}          // inodes changed elsewhere that have no name here
	modified  map[fs.Handle]struct{}          // inodes whose content may have changed
	inodes    map[inode]struct{}              // inodes changed elsewhere that have a further name, perhaps here
	count     int
	full      string
}

const (
	// maxChanges bounds the memory; beyond it comparing the whole tree is not slower any more.
	maxChanges = 200_000
	maxKnown   = 16 << 10 // handles remembered as being elsewhere
)

func watchFilesystem(path string, root *fs.Dir, log *slog.Logger) (*fanLog, error) {
	h, err := root.Handle("")
	if err != nil {
		return nil, err
	}
	if _, _, err := root.PathOf(h); err != nil { // CAP_DAC_READ_SEARCH
		return nil, err
	}
	group, err := fanotify.WatchFilesystem(path)
	if err != nil {
		return nil, err
	}
	l := &fanLog{root: root, group: group, log: log, done: make(chan struct{})}
	l.forget()
	l.clear()
	go l.listen()
	return l, nil
}

func (l *fanLog) name() string { return "fanotify" }

func (l *fanLog) unmapped() bool { return true } // the last close of its file

func (l *fanLog) clear() {
	l.inside = map[fs.Handle]map[string]uint64{}
	l.strangers = map[fs.Handle]struct{}{}
	l.modified = map[fs.Handle]struct{}{}
	l.inodes = map[inode]struct{}{}
	l.count, l.full = 0, ""
}

// forget drops what is known of where directories are.
func (l *fanLog) forget() {
	l.paths = map[fs.Handle]string{}
	l.outside = map[fs.Handle]struct{}{}
}

func (l *fanLog) listen() {
	defer close(l.done)
	for {
		if err := l.group.Wait(); err != nil {
			return
		}
		l.quiet.Lock()
		l.mu.Lock()
		err := l.group.Drain(l.event)
		if err != nil {
			l.overflow(err.Error())
		}
		l.mu.Unlock()
		l.quiet.Unlock()
		if err != nil {
			return
		}
	}
}

func (l *fanLog) pause() func() {
	l.quiet.Lock()
	return l.quiet.Unlock
}

func (l *fanLog) overflow(why string) {
	if l.full == "" {
		l.log.Warn("change log lost", "reason", why)
	}
	l.clear()
	l.forget()
	l.full = why
}

func (l *fanLog) event(e *fanotify.Event) {
	switch {
	case e.Mask&fanotify.Overflow != 0:
		l.overflow("the kernel's event queue ran over")
		return
	case l.full != "":
		return
	case e.Entry.Dir == "": // of the inode alone: a change of its link count, which the names tell too
		l.foreign(e)
		return
	}
	names, ok := l.directory(e.Entry.Dir)
	if !ok {
		l.foreign(e)
		return
	}
	if _, ok := names[e.Entry.Name]; !ok {
		l.count++
	}
	names[e.Entry.Name] |= e.Mask
	if e.Mask&(fanotify.Created|fanotify.Deleted|fanotify.MovedFrom|fanotify.MovedTo) != 0 {
		names["."] |= fanotify.Attrib | fanotify.OnDir // the directory's own times
	}
	if e.Mask&(fanotify.Modified|fanotify.Closed) != 0 && e.Object != "" {
		l.modified[e.Object] = struct{}{}
	}
	if e.Mask&(fanotify.MovedFrom|fanotify.MovedTo) != 0 && e.Mask&fanotify.OnDir != 0 {
		l.forget() // what lies beneath it is elsewhere now, or here
	}
	if l.count > maxChanges || len(l.modified) > maxChanges {
		l.overflow(fmt.Sprintf("more than %d changes", maxChanges))
	}
}

// directory returns the names that changed in a directory; false when it does not lie beneath the root.
func (l *fanLog) directory(h fs.Handle) (map[string]uint64, bool) {
	if names, ok := l.inside[h]; ok {
		return names, true
	}
	if _, ok := l.outside[h]; ok {
		return nil, false
	}
	if _, ok := l.paths[h]; ok {
		names := map[string]uint64{}
		l.inside[h] = names
		return names, true
	}
	path, _, err := l.root.PathOf(h)
	if err != nil && !elsewhere(err) {
		l.overflow(lost(err))
		return nil, false
	}
	if err != nil {
		if len(l.outside) >= maxKnown {
			clear(l.outside)
		}
		l.outside[h] = struct{}{}
		return nil, false
	}
	l.know(h, path)
	names := map[string]uint64{}
	l.inside[h] = names
	return names, true
}

// elsewhere tells an inode that is not beneath the root from one that was not found for another reason: no descriptor or memory
// left, no /proc. What is taken to be elsewhere is not asked about again. Gone (ESTALE) counts as elsewhere: that it went is an
// event of its parent.
func elsewhere(err error) bool {
	return errors.Is(err, fs.ErrOutside) || errors.Is(err, syscall.ESTALE)
}

func lost(err error) string { return fmt.Sprintf("what has changed cannot be found: %v", err) }

func (l *fanLog) know(h fs.Handle, path string) {
	if len(l.paths) >= maxKnown {
		clear(l.paths)
	}
	l.paths[h] = path
}

// foreign is a change under a name that is not beneath the root. The inode may have a further name that is.
func (l *fanLog) foreign(e *fanotify.Event) {
	if l.full != "" || e.Object == "" || e.Mask&(fanotify.Modified|fanotify.Closed|fanotify.Attrib) == 0 || e.Mask&fanotify.OnDir != 0 {
		return
	}
	if _, ok := l.strangers[e.Object]; ok {
		return
	}
	_, st, err := l.root.PathOf(e.Object)
	if err != nil && !elsewhere(err) {
		l.overflow(lost(err))
		return
	}
	if st.Nlink > 1 || err == nil {
		if _, ok := l.inodes[inodeOf(&st)]; !ok {
			l.inodes[inodeOf(&st)] = struct{}{}
			l.count++
		}
		if e.Mask&(fanotify.Modified|fanotify.Closed) != 0 {
			l.modified[e.Object] = struct{}{}
		}
		return
	}
	if len(l.strangers) >= maxKnown {
		clear(l.strangers)
	}
	l.strangers[e.Object] = struct{}{}
}

func (l *fanLog) reset() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	err := l.group.Drain(func(*fanotify.Event) {})
	l.clear()
	l.forget()
	return err
}

func (l *fanLog) take() *changes {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.group.Drain(l.event); err != nil {
		l.overflow(err.Error())
	}
	defer l.clear()
	if l.full != "" {
		return &changes{full: l.full}
	}
	c := &changes{paths: make(map[string]changeFlag, l.count)}
	for h, names := range l.inside {
		dir, ok := l.paths[h]
		if !ok {
			var err error
			dir, _, err = l.root.PathOf(h)
			switch {
			case err != nil && elsewhere(err):
				continue
			case err != nil:
				return &changes{full: lost(err)}
			}
			l.know(h, dir)
		}
		for name, mask := range names {
			c.add(dir, name, mask)
		}
	}
	for id := range l.inodes {
		c.inodes = append(c.inodes, id)
	}
	modified := l.modified
	c.modified = func(dir *fs.Dir, name string) bool {
		h, err := dir.Handle(name)
		_, ok := modified[h]
		return ok || err != nil
	}
	return c
}

func (c *changes) add(dir, name string, mask uint64) {
	if name == "." {
		c.mark(dir, changeMore)
		return
	}
	flag := changeMore
	if mask&^(fanotify.Modified|fanotify.Closed) == 0 {
		flag = changeWritten
	}
	if mask&fanotify.OnDir != 0 && mask&(fanotify.MovedTo|fanotify.Created) != 0 {
		flag |= changeTree | changeFresh // another directory than the one the peer may have there
	}
	c.mark(joinPath(dir, name), flag)
}

func (l *fanLog) close() error {
	err := l.group.Close()
	<-l.done
	return err
}
