package filesync

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// What changes in the freeze is written into the peer's file; whatever that file was must not shine through.
func TestSmallFilesAreWrittenInPlace(t *testing.T) {
	p := newPair(t)
	p.write("longer", "this was longer")
	p.write("linked", "two names")
	must(t, os.Link(p.at("linked"), p.at("other")))
	p.write("capable", "elf")
	p.setXattr("capable", "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	p.write("setuid", "elf")
	must(t, os.Chmod(p.at("setuid"), os.ModeSetuid|0o755))
	p.write("renamed", "goes elsewhere")
	p.write("link", "becomes one")
	p.write("same", "content")
	p.open(SourceOptions{}, true)
	p.pass()
	inode := func(name string) uint64 {
		var st syscall.Stat_t
		must(t, syscall.Lstat(p.dst+"/"+name, &st))
		return st.Ino
	}
	before := inode("longer")
	time.Sleep(2 * racyWindow)
	p.write("longer", "short")
	must(t, os.Remove(p.at("linked")))
	p.write("linked", "one name now")
	p.write("capable", "elf, newer")
	p.setXattr("capable", "security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	p.write("setuid", "elf, newer")
	must(t, os.Chmod(p.at("setuid"), os.ModeSetuid|0o755))
	must(t, os.Rename(p.at("renamed"), p.at("elsewhere")))
	p.write("renamed", "another")
	must(t, os.Remove(p.at("link")))
	must(t, os.Symlink("same", p.at("link")))
	p.delta()
	p.equal()
	if inode("longer") != before {
		t.Error("it was made anew")
	}
	time.Sleep(2 * racyWindow)
	if st := p.delta(); st.Files != 0 {
		t.Errorf("a second delta: %+v", st)
	}
}
