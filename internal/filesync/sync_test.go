package filesync

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// populate makes one of everything that a rootfs can hold.
func populate(p *pair) {
	p.t.Helper()
	t := p.t
	p.write("etc/passwd", "root:x:0:0\n")
	p.write("empty", "")
	p.write("bin/su", "elf")
	must(t, os.Chown(p.at("bin/su"), 0, 5))
	must(t, os.Chmod(p.at("bin/su"), os.ModeSetuid|os.ModeSetgid|0o755))
	p.write("bin/ping", "elf too")
	p.setXattr("bin/ping", "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	p.setXattr("etc/passwd", "user.note", "hello")
	p.setXattr("etc/passwd", "user.empty", "")
	p.setXattr("etc", "trusted.overlay.opaque", "y")
	// user::rw- group::r-- mask::rw- other::r-- and user 1000 rw-
	p.setXattr("etc/passwd", "system.posix_acl_access", "\x02\x00\x00\x00"+
		"\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x06\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff")
	p.write("inherit/file", "made before the default ACL")
	p.setXattr("inherit", "system.posix_acl_default", "\x02\x00\x00\x00"+
		"\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x07\x00\xe8\x03\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff")
	must(t, os.MkdirAll(p.at("tmp/a/b/c"), 0o755))
	must(t, os.Chmod(p.at("tmp"), os.ModeSticky|0o777))
	must(t, os.Symlink("../etc/passwd", p.at("tmp/link")))
	must(t, os.Symlink("/nowhere", p.at("tmp/dangling")))
	must(t, os.Lchown(p.at("tmp/link"), 12, 13))
	p.setXattr("tmp/link", "trusted.note", "on a symlink")
	must(t, os.Link(p.at("etc/passwd"), p.at("tmp/hard")))
	must(t, os.Link(p.at("etc/passwd"), p.at("a-first")))
	must(t, os.Link(p.at("tmp/dangling"), p.at("tmp/dangling2")))
	must(t, syscall.Mknod(p.at("tmp/fifo"), syscall.S_IFIFO|0o620, 0))
	must(t, syscall.Mknod(p.at("tmp/sock"), syscall.S_IFSOCK|0o700, 0))
	must(t, syscall.Mknod(p.at("tmp/null"), syscall.S_IFCHR|0o666, 1<<8|3))
	must(t, syscall.Mknod(p.at("tmp/loop"), syscall.S_IFBLK|0o660, 7<<8))
	must(t, syscall.Mknod(p.at("tmp/whiteout"), syscall.S_IFCHR, 0))
	p.write("strange/"+strings.Repeat("n", 255), "long name")
	p.write("strange/\xff\xfe\n \\", "no UTF-8")
	p.write("large", strings.Repeat("0123456789abcdef", 300<<10)) // 4.7 MiB
	p.write("middle", strings.Repeat("x", maxInline+1))
	f, err := os.Create(p.at("sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("data"), 5<<20+12345)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("d"), 3<<20), 20<<20)
	must(t, err)
	must(t, f.Truncate(26<<20+77))
	must(t, f.Close())
	must(t, os.Chmod(p.at("strange"), 0o555))
	old := time.Unix(1_000_000_000, 123456789)
	for _, name := range []string{"empty", "bin", "etc", "tmp/a/b", "."} {
		must(t, os.Chtimes(p.at(name), old, old))
	}
}

func TestTreeArrivesWithEverythingOnIt(t *testing.T) {
	p := newPair(t)
	populate(p)
	p.open(SourceOptions{}, false)
	st := p.pass()
	p.equal()
	if !st.Full || st.Files == 0 {
		t.Errorf("stats: %+v", st)
	}
	var s syscall.Stat_t
	must(t, syscall.Stat(p.dst+"/sparse", &s))
	if s.Blocks*512 > 8<<20 {
		t.Errorf("the sparse file takes %d bytes at the peer", s.Blocks*512)
	}
	if p.a.max > MaxFrame || p.b.max > MaxFrame {
		t.Errorf("frames of %d and %d bytes", p.a.max, p.b.max)
	}
}

func TestSecondPassSendsNothing(t *testing.T) {
	p := newPair(t)
	populate(p)
	p.open(SourceOptions{}, false)
	p.pass()
	time.Sleep(2 * racyWindow)
	p.pass() // reads again what was racy
	if st := p.pass(); st.Files != 0 || st.Bytes != 0 || st.Reread != 0 {
		t.Errorf("third pass: %+v", st)
	}
	p.equal()
}

func TestMoveBackSendsOnlyWhatChanged(t *testing.T) {
	p := newPair(t)
	populate(p)
	p.open(SourceOptions{}, false)
	p.pass()
	time.Sleep(2 * racyWindow)
	p.delta()
	p.close()

	p.src, p.dst = p.dst, p.src
	must(t, os.Rename(p.state+"/src", p.state+"/x"))
	must(t, os.Rename(p.state+"/dst", p.state+"/src"))
	must(t, os.Rename(p.state+"/x", p.state+"/dst"))
	p.write("etc/new", "written at the peer")
	p.open(SourceOptions{}, false)
	st := p.pass()
	if st.Files != 1 || st.Bytes > 100 || st.Reread > 1 {
		t.Errorf("moving back: %+v", st)
	}
	p.equal()
}

func TestPeersOwnCopyIsNotSentAgain(t *testing.T) {
	p := newPair(t)
	populate(p)
	p.open(SourceOptions{}, false)
	p.pass()
	p.close()
	must(t, os.RemoveAll(p.state+"/src"))
	must(t, os.WriteFile(p.state+"/dst", []byte("rubbish"), 0o600))
	p.open(SourceOptions{}, false)
	if st := p.pass(); st.Files != 0 {
		t.Errorf("without any index: %+v", st)
	}
	p.equal()
}

// changesOf are the changes that a container can make between two passes; each is a row of the tests below.
var changesOf = []struct {
	name string
	do   func(p *pair)
}{
	{"new file", func(p *pair) { p.write("etc/new", "x") }},
	{"new tree", func(p *pair) { p.write("n/e/w/file", "x"); p.write("n/e/x", "y") }},
	{"rewritten", func(p *pair) { p.write("bin/ping", "other") }},
	{"appended", func(p *pair) { p.append("large", "more") }},
	{"patched", func(p *pair) { p.patch("large", "changed", 2<<20+5) }},
	{"patched in a hole", func(p *pair) { p.patch("sparse", "changed", 10<<20) }},
	{"shortened", func(p *pair) { must(p.t, os.Truncate(p.at("large"), 2<<20)) }},
	{"shortened to a part", func(p *pair) { must(p.t, os.Truncate(p.at("large"), 1<<20+1)) }},
	{"grown by a hole", func(p *pair) { must(p.t, os.Truncate(p.at("large"), 9<<20)) }},
	{"emptied", func(p *pair) { must(p.t, os.Truncate(p.at("large"), 0)) }},
	{"mode", func(p *pair) { must(p.t, os.Chmod(p.at("large"), 0o600)) }},
	{"owner of a set-id file", func(p *pair) {
		must(p.t, os.Chown(p.at("bin/su"), 9, 9))
		must(p.t, os.Chmod(p.at("bin/su"), os.ModeSetuid|0o711))
	}},
	{"times", func(p *pair) { must(p.t, os.Chtimes(p.at("large"), time.Unix(5, 6), time.Unix(7, 8))) }},
	{"time of a directory", func(p *pair) { must(p.t, os.Chtimes(p.at("tmp"), time.Unix(5, 6), time.Unix(7, 8))) }},
	{"xattr", func(p *pair) { p.setXattr("etc/passwd", "user.more", "x") }},
	{"xattr of a directory", func(p *pair) { p.setXattr("etc", "user.more", "x") }},
	{"renamed", func(p *pair) { must(p.t, os.Rename(p.at("large"), p.at("tmp/larger"))) }},
	{"renamed over another", func(p *pair) { must(p.t, os.Rename(p.at("large"), p.at("middle"))) }},
	{"rotated", func(p *pair) { must(p.t, os.Rename(p.at("middle"), p.at("middle.1"))); p.write("middle", "new log") }},
	{"swapped", func(p *pair) {
		must(p.t, os.Rename(p.at("large"), p.at("t")))
		must(p.t, os.Rename(p.at("middle"), p.at("large")))
		must(p.t, os.Rename(p.at("t"), p.at("middle")))
	}},
	{"directory renamed", func(p *pair) { must(p.t, os.Rename(p.at("etc"), p.at("config"))) }},
	{"directory renamed twice", func(p *pair) {
		must(p.t, os.Rename(p.at("tmp/a"), p.at("tmp/aa")))
		must(p.t, os.Rename(p.at("tmp/aa"), p.at("aaa")))
		p.write("aaa/b/in", "x")
	}},
	{"removed", func(p *pair) { must(p.t, os.Remove(p.at("large"))) }},
	{"tree removed", func(p *pair) { must(p.t, os.RemoveAll(p.at("tmp"))) }},
	{"file becomes a directory", func(p *pair) { must(p.t, os.Remove(p.at("empty"))); p.write("empty/in", "x") }},
	{"directory becomes a file", func(p *pair) { must(p.t, os.RemoveAll(p.at("tmp/a"))); p.write("tmp/a", "x") }},
	{"directory becomes a symlink", func(p *pair) {
		must(p.t, os.Rename(p.at("etc"), p.at("etc.d")))
		must(p.t, os.Symlink("etc.d", p.at("etc")))
	}},
	{"symlink becomes a file", func(p *pair) { must(p.t, os.Remove(p.at("tmp/link"))); p.write("tmp/link", "x") }},
	{"symlink retargeted", func(p *pair) {
		must(p.t, os.Remove(p.at("tmp/link")))
		must(p.t, os.Symlink("elsewhere", p.at("tmp/link")))
	}},
	{"device renumbered", func(p *pair) {
		must(p.t, os.Remove(p.at("tmp/null")))
		must(p.t, syscall.Mknod(p.at("tmp/null"), syscall.S_IFCHR|0o666, 1<<8|5))
	}},
	{"linked", func(p *pair) { must(p.t, os.Link(p.at("large"), p.at("0-before"))) }},
	{"link written", func(p *pair) { p.append("tmp/hard", "appended") }},
	{"link broken", func(p *pair) { must(p.t, os.Remove(p.at("tmp/hard"))); p.write("tmp/hard", "alone") }},
	{"link's first name removed", func(p *pair) { must(p.t, os.Remove(p.at("a-first"))) }},
	{"link's first name renamed", func(p *pair) { must(p.t, os.Rename(p.at("a-first"), p.at("z-last"))) }},
	{"all links but one removed", func(p *pair) {
		must(p.t, os.Remove(p.at("a-first")))
		must(p.t, os.Remove(p.at("tmp/hard")))
	}},
	{"link to a symlink removed", func(p *pair) { must(p.t, os.Remove(p.at("tmp/dangling"))) }},
	{"written and replaced", func(p *pair) {
		p.write("etc/passwd.new", "root:y:0:0\n")
		must(p.t, os.Rename(p.at("etc/passwd.new"), p.at("etc/passwd")))
	}},
	{"content put back with its times", func(p *pair) {
		info, err := os.Stat(p.at("middle"))
		must(p.t, err)
		p.write("middle", strings.Repeat("y", maxInline+1))
		must(p.t, os.Chtimes(p.at("middle"), info.ModTime(), info.ModTime()))
	}},
	{"root's mode", func(p *pair) { must(p.t, os.Chmod(p.src, 0o711)) }},
	{"made and removed", func(p *pair) { p.write("gone/x", "x"); must(p.t, os.RemoveAll(p.at("gone"))) }},
}

func (p *pair) append(name, text string) {
	p.t.Helper()
	f, err := os.OpenFile(p.at(name), os.O_WRONLY|os.O_APPEND, 0)
	must(p.t, err)
	_, err = f.WriteString(text)
	must(p.t, err)
	must(p.t, f.Close())
}

func (p *pair) patch(name, text string, off int64) {
	p.t.Helper()
	f, err := os.OpenFile(p.at(name), os.O_WRONLY, 0)
	must(p.t, err)
	_, err = f.WriteAt([]byte(text), off)
	must(p.t, err)
	must(p.t, f.Close())
}

func TestDeltaByChangeLog(t *testing.T) {
	for _, c := range changesOf {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			populate(p)
			p.open(SourceOptions{}, true)
			p.pass()
			p.equal()
			c.do(p)
			st := p.delta()
			p.equal()
			if st.Full {
				t.Errorf("the delta was a full pass: %s", st.Reason)
			}
		})
	}
}

func TestDeltaWithoutChangeLog(t *testing.T) {
	for _, c := range changesOf {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			populate(p)
			p.open(SourceOptions{}, false)
			p.pass()
			c.do(p)
			if st := p.delta(); !st.Full || st.Reason == "" {
				t.Errorf("stats: %+v", st)
			}
			p.equal()
		})
	}
}
