package attacks

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// withOwnDev is a container whose /dev is a volume that its image, or another container, fills. It tells what became of
// the masked /proc/keys, and tries to change the kernel's domain name through it: a parameter of its own namespace, in
// the place of /proc/sys/kernel/core_pattern.
func (w *world) withOwnDev() *container {
	must(w.t, os.MkdirAll(w.volume("dev/pts"), 0o755))
	c := w.container("victim", "sh", "-c", "stat -c %t:%T /proc/keys; echo attacked >/proc/keys; cat /proc/sys/kernel/domainname; cat /proc/keys")
	c.spec.Linux.Sysctl = map[string]string{"kernel.domainname": "untouched"}
	c.spec.Mounts[1] = bindMount(w.volume("dev"), "/dev")
	return c
}

// masked is what withOwnDev prints when /proc/keys is covered by the device 1:3: nothing comes out of it.
const masked = "1:3\nuntouched\n"

func null(t *testing.T, path string) {
	t.Helper()
	must(t, unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
}

// CVE-2025-31133: files are masked by a bind of the container's /dev/null, whatever that is. As a link to a file of /proc
// it made that file writable in the place of the mask, and where it was missing nothing was masked at all. Debian's runc
// 1.1.5 gives in to everything here but the real device.
func TestCVE_2025_31133_MaskIsTheRealNull(t *testing.T) {
	for name, put := range map[string]func(t *testing.T, path string){
		"missing":          func(*testing.T, string) {},
		"link into /proc":  func(t *testing.T, path string) { must(t, os.Symlink("/proc/sys/kernel/domainname", path)) },
		"link to the host": func(t *testing.T, path string) { must(t, os.Symlink("/../../../../../etc/passwd", path)) },
		"link to a null": func(t *testing.T, path string) {
			null(t, path+"-real")
			must(t, os.Symlink("null-real", path))
		},
		"file":      func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("file\n"), 0o666)) },
		"directory": func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o777)) },
		"fifo":      func(t *testing.T, path string) { must(t, unix.Mkfifo(path, 0o666)) },
		"zero":      func(t *testing.T, path string) { must(t, unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))) },
		"block device": func(t *testing.T, path string) {
			must(t, unix.Mknod(path, unix.S_IFBLK|0o666, int(unix.Mkdev(1, 3))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.withOwnDev()
			put(t, w.volume("dev/null"))
			out, err := c.run()
			if err == nil {
				t.Errorf("the container started, and says:\n%s", out)
			}
			wantError(t, out, "/dev/null")
		})
	}
	w := newWorld(t)
	c := w.withOwnDev()
	null(t, w.volume("dev/null"))
	if out, err := c.run(); err != nil || out != masked {
		t.Errorf("with the real device the container says %q, %v", out, err)
	}
}

// The same while another container exchanges the real device for a link.
func TestCVE_2025_31133_NullIsExchangedForALink(t *testing.T) {
	w := newWorld(t)
	c := w.withOwnDev()
	null(t, w.volume("dev/null"))
	must(t, os.Symlink("/proc/sys/kernel/domainname", w.volume("dev/link")))
	defer w.swap(w.volume("dev/null"), w.volume("dev/link"))()
	raced(t, 1, func(int) (string, error) {
		out, err := c.run()
		if err == nil && out != masked {
			t.Errorf("the container started, and says:\n%s", out)
		}
		return out, err
	}, "mask paths: the container's /dev/null is something else")
}

// Masks beneath /proc are laid after the root is entered. Where containers share a root, another one can put a directory
// in the place of /proc for just that moment: the masks would cover its files, and the real ones stay open. Debian's runc
// 1.1.5 leaves /proc/keys readable in some of these starts.
func TestCVE_2025_31133_ProcIsMovedAwayFromItsMasks(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "sleep", "1000")
	falseProc(t, c.rootfs+"/false")
	stop := w.swap(c.rootfs+"/proc", c.rootfs+"/false")
	raced(t, 1, func(int) (string, error) {
		out, err := c.create()
		if err == nil {
			c.checkMasks()
			c.delete()
		}
		return out, err
	}, procRefusals()...)
	stop()
	for _, name := range []string{"proc", "false"} { // one is it, the other was the mount point and is empty
		checkFalseProc(t, filepath.Join(c.rootfs, name))
	}
}

// procRefusals are the reasons for which nothing starts when /proc is exchanged: a false one is there, or comes later.
func procRefusals() []string {
	return []string{"/proc leads to /false", "/proc is no longer the proc that was mounted there"}
}

// checkMasks fails the test when a procfs of a created container is open where the spec says that it is masked. Names
// change while this looks, so what is mounted on what goes by the mounts' numbers.
func (c *container) checkMasks() {
	c.t.Helper()
	mounts := c.mountInfo()
	on := map[int][]string{}
	for _, m := range mounts {
		on[m.Parent] = append(on[m.Parent], filepath.Base(m.Mountpoint))
	}
	roots := 0
	for _, m := range mounts {
		if m.FSType != "proc" || m.Root != "/" {
			continue
		}
		roots++
		for _, name := range []string{"kcore", "keys", "timer_list", "sys", "sysrq-trigger"} {
			if _, err := os.Stat("/proc/" + name); err == nil && !slices.Contains(on[m.ID], name) {
				c.t.Errorf("%s/%s is neither masked nor read-only; on that procfs is %v", m.Mountpoint, name, on[m.ID])
			}
		}
	}
	if roots == 0 {
		c.t.Error("the container has no procfs")
	}
}
