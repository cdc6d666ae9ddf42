package filesync

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
	"github.com/livemigrate/migrate/internal/testutil"
)

// newOverlayPair has an overlay as its source. fill makes the lower directory, in base, which upper may be, too.
func newOverlayPair(t *testing.T, base, upper, options string, fill func(*pair)) *pair {
	t.Helper()
	p := newPair(t)
	merged := t.TempDir()
	for _, d := range []string{base + "/lower", upper + "/upper", upper + "/work"} {
		must(t, os.Mkdir(d, 0o755))
	}
	p.src = base + "/lower"
	fill(p)
	p.src = merged
	err := syscall.Mount("overlay", merged, "overlay", 0, fmt.Sprintf(
		"lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,index=off,%s", base, upper, upper, options))
	testutil.Need(t, err == nil, "overlayfs")
	t.Cleanup(func() { must(t, syscall.Unmount(merged, syscall.MNT_DETACH)) })
	return p
}

// told is a delta by what the upper directory tells; the trees are equal then.
func (p *pair) told() {
	p.t.Helper()
	if st := p.delta(); st.Full || st.Log != "overlay" {
		p.t.Errorf("stats: %+v", st)
	}
	p.equal()
}

func TestOverlayTellsByItsUpperDirectory(t *testing.T) {
	for _, c := range changesOf {
		t.Run(c.name, func(t *testing.T) {
			base := mountTmpfs(t, "size=256m")
			p := newOverlayPair(t, base, base, "redirect_dir=on,xino=off", func(p *pair) {
				populate(p)
				must(t, os.Remove(p.at("tmp/whiteout")))
				dropXattr(t, p.at("etc"), "trusted.overlay.opaque")
			})
			p.write("etc/in-upper", "x")
			p.open(SourceOptions{}, true)
			p.pass()
			c.do(p)
			p.told()
		})
	}
}

// The layers of an overlay number their inodes each for itself.
func TestLayersThatNumberTheirInodesAlike(t *testing.T) {
	const pairs = 40
	link := func(p *pair, dir, text string) {
		for i := range pairs {
			name := filepath.Join(dir, strconv.Itoa(i))
			p.write(name, fmt.Sprint(text, i))
			must(t, os.Link(p.at(name), p.at(name+"-too")))
		}
	}
	lower, upper := mountTmpfs(t, "size=16m"), mountTmpfs(t, "size=16m")
	p := newOverlayPair(t, lower, upper, "xino=off", func(p *pair) { link(p, "lower", "of the lower ") })
	link(p, "upper", "of the upper ")
	numbers := map[uint64]uint64{}
	alike := 0
	for _, dir := range []string{"lower", "upper"} {
		for i := range pairs {
			var st syscall.Stat_t
			must(t, syscall.Stat(p.at(filepath.Join(dir, strconv.Itoa(i))), &st))
			if dev, ok := numbers[st.Ino]; ok && dev != st.Dev {
				alike++
			}
			numbers[st.Ino] = st.Dev
		}
	}
	if alike == 0 {
		t.Fatal("no two files have the same number")
	}
	p.open(SourceOptions{}, true)
	p.pass()
	p.equal()
	link(p, "new", "of the upper later ")
	p.append("lower/3", ", written to")
	p.append("upper/3", ", written to")
	p.told()
	p.close()
	p.open(SourceOptions{}, true)
	if st := p.pass(); st.Files != 0 {
		t.Errorf("the next move: %+v", st)
	}
	p.equal()
}

// A directory that is removed and made again, with the inode number of the one before, hides what the lower has there.
func TestOverlayDirectoryMadeAnewWithItsNumber(t *testing.T) {
	base := t.TempDir()
	p := newOverlayPair(t, base, base, "xino=off", func(p *pair) {
		p.write("d/of-the-lower", "x")
		p.write("d/sub/of-the-lower", "x")
	})
	p.write("d/copied-up", "x")
	p.write("d/sub/copied-up", "x")
	upper := func() uint64 {
		var st syscall.Stat_t
		must(t, syscall.Stat(base+"/upper/d", &st))
		return st.Ino
	}
	before := upper()
	p.open(SourceOptions{}, true)
	p.pass()
	p.equal()
	for range 20 {
		must(t, os.RemoveAll(p.at("d")))
		must(t, os.Mkdir(p.at("d"), 0o755))
		if upper() == before {
			break
		}
	}
	if upper() != before {
		t.Log("this filesystem gives out no number twice")
	}
	p.write("d/later", "x")
	p.told()
}

// With redirect_dir a directory of the lower is renamed as it is: what stood at its new place has gone, and no file there tells.
func TestOverlayDirectoryInThePlaceOfAnother(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p *pair)
	}{
		{"replaced", func(p *pair) {
			must(p.t, os.RemoveAll(p.at("cur")))
			must(p.t, os.Rename(p.at("new"), p.at("cur")))
		}},
		{"exchanged", func(p *pair) {
			dir, err := fs.OpenDir(p.src)
			must(p.t, err)
			defer dir.Close()
			must(p.t, dir.Exchange("cur", "new"))
		}},
		{"renamed in turn", func(p *pair) {
			must(p.t, os.Rename(p.at("cur"), p.at("old")))
			must(p.t, os.Rename(p.at("new"), p.at("cur")))
			must(p.t, os.Rename(p.at("old"), p.at("new")))
		}},
	} {
		for _, touched := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s while copied up %v", c.name, touched), func(t *testing.T) {
				base := mountTmpfs(t, "size=16m")
				p := newOverlayPair(t, base, base, "redirect_dir=on,metacopy=on", func(p *pair) {
					for _, d := range []string{"cur", "new"} {
						p.write(d+"/only-in-"+d, "x")
						p.write(d+"/both", "of "+d)
						p.write(d+"/sub/both", "of sub in "+d)
						must(t, os.Link(p.at(d+"/both"), p.at(d+"/both-too")))
					}
				})
				if touched {
					p.append("cur/sub/both", "!")
					p.append("new/sub/both", "!")
				}
				p.open(SourceOptions{}, true)
				p.pass()
				p.equal()
				c.do(p)
				p.told()
			})
		}
	}
}

// What was looked at within a tick of its change is named once more: it can have changed again without a new ctime.
func TestOverlayNamesAFreshChangeTwice(t *testing.T) {
	base := t.TempDir()
	p := newOverlayPair(t, base, base, "xino=off", func(*pair) {})
	l, err := watchOverlay(t.Context(), p.src)
	must(t, err)
	defer l.close()
	takes := func() (named bool) { _, named = l.take().paths["x"]; return named }
	twice := false
	for range 50 { // it may take longer than a tick to be looked at
		p.write("x", "x")
		if !takes() {
			t.Fatal("not named at all")
		}
		if twice = takes(); twice {
			break
		}
	}
	if !twice {
		t.Error("not named again")
	}
	time.Sleep(2 * racyWindow)
	takes()
	if takes() {
		t.Error("named again and again")
	}
}

// A page that is dirty is written to without a new ctime, and overlayfs tells nobody when the mapping ends.
func TestOverlayFileWhoseMappingHasEnded(t *testing.T) {
	for name, passes := range map[string]int{"before the first pass": 0, "before the second": 1} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("mapped %s with another move %v", name, again), func(t *testing.T) {
				base := t.TempDir()
				p := newOverlayPair(t, base, base, "xino=off", func(p *pair) { p.write("d/mapped", "aaaa") })
				p.append("d/mapped", "bbbb")
				must(t, os.Link(p.at("d/mapped"), p.at("a-first-name")))
				o := SourceOptions{DirtyFiles: func() ([]string, error) { return WritableFiles(p.src, []int{os.Getpid()}) }}
				p.open(o, true)
				for range passes {
					p.pass()
				}
				f, err := os.OpenFile(p.at("d/mapped"), os.O_RDWR, 0)
				must(t, err)
				mem, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
				must(t, err)
				mem[0] = '1'
				time.Sleep(2 * racyWindow)
				p.pass()
				mem[1] = '2'
				must(t, syscall.Munmap(mem))
				must(t, f.Close())
				if again {
					p.close()
					p.open(o, true)
					p.pass()
					p.equal()
				} else {
					p.pass()
				}
				p.told()
			})
		}
	}
}
