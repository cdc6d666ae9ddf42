package filesync

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fanotify"
)

// fan is the source's log. It hears of the whole file system that the tree is on: of a small one of its own here.
func (p *pair) fan() *fanLog {
	p.t.Helper()
	l, ok := p.source.changes.(*fanLog)
	if !ok {
		p.t.Fatalf("the change log is %s", p.source.changes.name())
	}
	return l
}

// hears waits until the log has taken note of something: all of what is asked about is kept under its lock.
func (p *pair) hears(what string, ok func(l *fanLog) bool) {
	p.t.Helper()
	l := p.fan()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		done := ok(l)
		l.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the log does not hear of %s", what)
		}
	}
}

// only leaves the process room for so many more descriptors, and returns how to take that back.
func only(t *testing.T, descriptors uint64) (restore func()) {
	t.Helper()
	var was syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	f, err := os.Open("/")
	must(t, err)
	next := uint64(f.Fd())
	must(t, f.Close())
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: next + descriptors, Max: was.Max}))
	return func() { must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was)) }
}

// A directory that could not be looked for, as there was no descriptor left, is not taken to be elsewhere: not for this look, and not
// for those to come.
func TestWhatCannotBeLookedForIsNotElsewhere(t *testing.T) {
	for _, c := range []struct {
		name string
		room uint64
	}{{"no descriptor left", 0}, {"one left", 1}} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			p.src = mountTmpfs(t, "size=16m")
			populate(p)
			p.write("etc/review", "first")
			p.open(SourceOptions{}, true)
			p.pass()
			open, err := os.OpenFile(p.at("etc/review"), os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			defer open.Close()
			l := p.fan()
			l.mu.Lock()
			l.forget() // as after any directory's move
			l.mu.Unlock()
			restore := only(t, c.room)
			_, err = open.WriteString(", and then")
			p.hears("the write", func(l *fanLog) bool { return l.full != "" || len(l.outside) > 0 })
			restore()
			must(t, err)
			p.write("etc/later", "made when all was well again")
			first := p.pass()
			p.equal()
			if !first.Full {
				t.Errorf("nobody is told: %+v", first)
			}
			p.write("etc/later", "and written to")
			if st := p.delta(); st.Full {
				t.Errorf("the delta afterwards: %+v", st)
			}
			p.equal()
		})
	}
}

// The same for an inode that is written to by a name elsewhere, and has another one here.
func TestWhatCannotBeLookedForMayHaveANameHere(t *testing.T) {
	p := newPair(t)
	disk := mountTmpfs(t, "size=16m")
	p.src = disk + "/tree"
	populate(p)
	p.write("etc/shared", "first")
	must(t, os.Mkdir(disk+"/elsewhere", 0o755))
	must(t, os.Link(p.at("etc/shared"), disk+"/elsewhere/name"))
	must(t, os.WriteFile(disk+"/elsewhere/other", nil, 0o600))
	p.open(SourceOptions{}, true)
	p.pass()
	must(t, os.WriteFile(disk+"/elsewhere/other", []byte("x"), 0o600))
	p.hears("the other directory", func(l *fanLog) bool { return len(l.outside) > 0 })
	open, err := os.OpenFile(disk+"/elsewhere/name", os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer open.Close()
	l := p.fan()
	l.mu.Lock()
	clear(l.strangers)
	l.mu.Unlock()
	restore := only(t, 0)
	_, err = open.WriteString(", and then")
	p.hears("the write", func(l *fanLog) bool { return l.full != "" || len(l.strangers) > 0 })
	restore()
	must(t, err)
	p.pass()
	got, err := os.ReadFile(p.dst + "/etc/shared")
	if err != nil || string(got) != "first, and then" {
		t.Errorf("the peer has %q, %v", got, err)
	}
}

// What is known of where a directory is lasts until one moves.
func TestWhereDirectoriesAreIsKnownFromPassToPass(t *testing.T) {
	p := newPair(t)
	disk := mountTmpfs(t, "size=16m")
	p.src = disk + "/tree"
	populate(p)
	must(t, os.MkdirAll(disk+"/elsewhere/in", 0o755))
	away := func(name, text string) { must(t, os.WriteFile(disk+"/"+name, []byte(text), 0o600)) }
	p.open(SourceOptions{}, true)
	p.pass()
	next := func(what string) {
		t.Helper()
		if st := p.pass(); st.Full {
			t.Errorf("%s: %+v", what, st)
		}
		p.equal()
	}

	away("elsewhere/in/log", "written elsewhere")
	p.hears("another directory", func(l *fanLog) bool { return len(l.outside) > 0 })
	next("a directory is elsewhere")
	away("elsewhere/in/log", "written again")
	next("a pass later it still is")
	must(t, os.Rename(disk+"/elsewhere", p.at("here")))
	p.write("here/in/log", "written here")
	next("two passes later it is here")
	p.write("here/in/log", "and again")
	next("it stays")

	p.write("tmp/a/b/c/log", "here")
	next("a directory is here")
	must(t, os.Rename(p.at("tmp"), disk+"/elsewhere"))
	away("elsewhere/a/b/c/log", "with its parent elsewhere")
	next("its parent is away")
	must(t, os.Rename(disk+"/elsewhere", p.at("tmp")))
	p.write("tmp/a/b/c/log", "here again")
	next("its parent is back")
	p.write("tmp/a/b/c/log", "and again")
	if st := p.delta(); st.Full {
		t.Errorf("the delta: %+v", st)
	}
	p.equal()
}

// When the queue has run over, nothing of what was known counts: a directory may have moved in what was lost.
func TestNothingIsKnownAfterALostEvent(t *testing.T) {
	p := newPair(t)
	p.src = mountTmpfs(t, "size=16m")
	populate(p)
	p.write("tmp/log", "first")
	p.open(SourceOptions{}, true)
	p.pass()
	p.write("tmp/log", "second")
	p.hears("a write", func(l *fanLog) bool { return len(l.paths) > 0 })
	resume := p.source.changes.pause()
	must(t, os.Rename(p.at("tmp"), p.at("var")))
	p.write("tmp/log", "another directory")
	l := p.fan()
	l.mu.Lock()
	must(t, l.group.Drain(func(*fanotify.Event) {}))
	l.overflow("the kernel's event queue ran over")
	l.mu.Unlock()
	resume()
	p.write("var/log", "where it is now")
	if st := p.pass(); !st.Full {
		t.Errorf("the pass after it: %+v", st)
	}
	p.equal()
	p.write("var/log", "and again")
	p.write("tmp/log", "and again, too")
	if st := p.delta(); st.Full {
		t.Errorf("the delta: %+v", st)
	}
	p.equal()
}

// What was only written to is sent first, and no more than that is believed of it.
func TestWrittenToAndThenSomethingElse(t *testing.T) {
	p := newPair(t)
	p.src = mountTmpfs(t, "size=32m")
	populate(p)
	p.write("etc/link", "a file")
	p.write("etc/mapped", string(make([]byte, 1<<20)))
	p.open(SourceOptions{DirtyFiles: func() ([]string, error) { return WritableFiles(p.src, []int{os.Getpid()}) }}, true)
	p.pass()
	open, err := os.OpenFile(p.at("etc/link"), os.O_WRONLY, 0)
	must(t, err)
	f, err := os.OpenFile(p.at("etc/mapped"), os.O_RDWR, 0)
	must(t, err)
	mem, err := syscall.Mmap(int(f.Fd()), 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(t, err)
	defer syscall.Munmap(mem)
	mem[1] = 'a' // dirty before the pass: nobody hears of what is written there later
	_, err = f.WriteAt([]byte("written"), 4096)
	must(t, err)
	must(t, f.Close())
	p.pass()
	_, err = open.WriteString("written to, ")
	must(t, err)
	must(t, open.Close())
	must(t, os.Remove(p.at("etc/link")))
	must(t, os.Symlink("mapped", p.at("etc/link")))
	mem[2] = 'b'
	if st := p.delta(); st.Full {
		t.Errorf("the delta: %+v", st)
	}
	p.equal()
}
