package filesync

import (
	"os"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// written are files that the container writes to all the time, in directories that the changes are in, too.
var written = []string{"log", "etc/log", "bin/log", "tmp/log", "tmp/a/b/c/log", "strange/log"}

// among are changes that what is only written to must not hide, nor be lost in.
var among = []struct {
	name string
	do   func(p *pair)
}{
	{"nothing else", func(*pair) {}},
	{"its mode", func(p *pair) { must(p.t, os.Chmod(p.at("etc/log"), 0o600)) }},
	{"its owner", func(p *pair) { must(p.t, os.Chown(p.at("etc/log"), 3, 4)) }},
	{"its attributes", func(p *pair) { p.setXattr("etc/log", "user.note", "new") }},
	{"its time put back", func(p *pair) { must(p.t, os.Chtimes(p.at("etc/log"), time.Unix(5, 6), time.Unix(7, 8))) }},
	{"its second name", func(p *pair) { must(p.t, os.Link(p.at("etc/log"), p.at("bin/second"))) }},
	{"it is emptied", func(p *pair) { must(p.t, os.Truncate(p.at("etc/log"), 0)) }},
	{"it is replaced", func(p *pair) {
		p.write("etc/log.new", "new")
		p.setXattr("etc/log.new", "user.note", "new")
		must(p.t, os.Rename(p.at("etc/log.new"), p.at("etc/log")))
	}},
	{"another directory in the place of its own", func(p *pair) {
		must(p.t, os.Rename(p.at("tmp"), p.at("tmp.old")))
		p.write("tmp/log", "another")
		p.write("tmp/a/b/c/log", "another, too")
	}},
	{"its directory made anew", func(p *pair) {
		must(p.t, os.RemoveAll(p.at("tmp")))
		p.write("tmp/a/b/c/log", "another")
	}},
	{"directories that change places", func(p *pair) {
		dir, err := fs.OpenDir(p.src)
		must(p.t, err)
		defer dir.Close()
		must(p.t, dir.Exchange("tmp", "etc"))
	}},
	{"a directory that was away", func(p *pair) {
		elsewhere := p.state + "/away"
		must(p.t, os.Rename(p.at("tmp"), elsewhere))
		must(p.t, os.WriteFile(elsewhere+"/a/b/c/log", []byte("written elsewhere"), 0o644))
		must(p.t, os.Rename(elsewhere, p.at("var")))
		p.write("var/a/b/c/log", "written here")
	}},
	{"a directory that has gone", func(p *pair) { must(p.t, os.Rename(p.at("tmp"), p.state+"/away")) }},
	{"a directory that was filled elsewhere", func(p *pair) {
		must(p.t, os.MkdirAll(p.state+"/made/in", 0o755))
		must(p.t, os.WriteFile(p.state+"/made/in/log", []byte("x"), 0o644))
		must(p.t, os.Rename(p.state+"/made", p.at("made")))
		p.write("made/in/log", "written here")
	}},
}

// Where directories are is remembered from one look to the next, and what was only written to is sent before all else: with
// whatever else happens, the trees are equal in the end.
func TestWhatIsWrittenToAmongOtherChanges(t *testing.T) {
	for _, c := range among {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			populate(p)
			write := func(text string) {
				for _, name := range written {
					p.write(name, text)
				}
			}
			write("first")
			p.open(SourceOptions{}, true)
			p.pass()
			write("the second time")
			if st := p.pass(); st.Full || st.Files != int64(len(written)) {
				t.Errorf("the pass before: %+v", st)
			}
			p.equal()
			write("third")
			var open []*os.File
			for _, name := range written {
				f, err := os.OpenFile(p.at(name), os.O_WRONLY|os.O_APPEND, 0)
				must(t, err)
				open = append(open, f)
			}
			c.do(p)
			for _, f := range open {
				_, err := f.WriteString(", wherever it is now")
				must(t, err)
				must(t, f.Close())
			}
			if st := p.delta(); st.Full {
				t.Errorf("the delta was a full pass: %s", st.Reason)
			}
			p.equal()
			if st := p.delta(); st.Full {
				t.Errorf("another delta: %+v", st)
			}
			p.equal()
		})
	}
}

// Nothing is read of the log while a delta is made; what happens meanwhile is in it afterwards.
func TestWhatHappensDuringADeltaIsNotLost(t *testing.T) {
	p := newPair(t)
	populate(p)
	p.open(SourceOptions{}, true)
	p.pass()
	resume := p.source.changes.pause()
	p.write("etc/meanwhile", "x")
	must(t, os.Rename(p.at("tmp"), p.at("var")))
	p.write("var/log", "x")
	resume()
	p.delta()
	p.equal()
}

// A full pass in the stop takes long: what happens on the file system meanwhile does not pile up in the kernel.
func TestTheLogIsEmptiedDuringAFullDelta(t *testing.T) {
	p := newPair(t)
	p.src = mountTmpfs(t, "size=16m")
	populate(p)
	var full bool
	p.open(SourceOptions{DirtyFiles: func() ([]string, error) {
		if full {
			p.write("etc/meanwhile", "x")
			p.hears("a write", func(l *fanLog) bool { return len(l.inside) > 0 })
			full = false
		}
		return nil, nil
	}}, true)
	p.pass()
	l := p.fan()
	l.mu.Lock()
	l.overflow("the kernel's event queue ran over")
	l.mu.Unlock()
	full = true
	if st := p.delta(); !st.Full || full {
		t.Errorf("the delta: %+v", st)
	}
	p.delta()
	p.equal()
}
