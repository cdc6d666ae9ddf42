package podman

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNamedVolumeOutlivesItsContainers(t *testing.T) {
	e := newEngine(t)
	name := e.prefix
	e.do("volume", "create", name)
	e.atEnd("volume", "rm", "--force", name)
	e.says("echo kept >/data/file", "--volume", name+":/data")
	e.same("what the next one reads", e.says("cat /data/file", "--volume", name+":/data:ro"), "kept")
	if got := e.once("touch /data/more", "--volume", name+":/data:ro"); got.code == 0 {
		t.Error("a read-only volume could be written")
	}
	e.do("volume", "rm", name)
}

// An empty volume is given what the image has at its place.
func TestNewVolumeBeginsWithTheImagesFiles(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100", "--volume", "/etc")
	e.holds("passwd", c.exec("cat", "/etc/passwd"), "someone")
}

func TestBindMountIsTheHostsDirectory(t *testing.T) {
	e := newEngine(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("from outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	e.same("inside", e.says("cat /mnt/in; echo from inside >/mnt/out", "--volume", dir+":/mnt"), "from outside")
	e.same("outside", read(t, filepath.Join(dir, "out")), "from inside")
	e.same("a file", e.says("cat /etc/motd", "--volume", dir+"/in:/etc/motd:ro"), "from outside")
	options := e.says("grep ' /mnt ' /proc/self/mounts", "--mount", "type=bind,src="+dir+",dst=/mnt,ro,bind-propagation=rslave")
	e.holds("options", options, " ro,")
}

// What is mounted on the host later appears where propagation was asked for.
func TestBindMountSeesLaterMounts(t *testing.T) {
	e := newEngine(t)
	dir := t.TempDir()
	mount := func(args ...string) { e.host("mount", args...) }
	mount("--bind", dir, dir)
	mount("--make-shared", dir)
	t.Cleanup(func() { e.host("umount", "--recursive", dir) })
	if err := os.Mkdir(filepath.Join(dir, "later"), 0o755); err != nil {
		t.Fatal(err)
	}
	slave := e.start("slave", "sleep 100", "--volume", dir+":/mnt:rslave")
	private := e.start("private", "sleep 100", "--volume", dir+":/mnt:rprivate")
	mount("-t", "tmpfs", "tmpfs", dir+"/later")
	e.holds("mounts of the slave", slave.exec("cat", "/proc/self/mounts"), "tmpfs /mnt/later")
	if got := private.try("exec", private.name, "grep", "/mnt/later", "/proc/self/mounts"); got.code == 0 {
		t.Errorf("mounts of the private one: %s", got.stdout)
	}
	e.do("rm", "--force", "--time", "0", slave.name, private.name)
}

func TestTmpfsHasItsOptions(t *testing.T) {
	e := newEngine(t)
	got := e.says("stat -c %a /scratch; grep ' /scratch ' /proc/self/mounts; df -k /dev/shm | tail -1",
		"--tmpfs", "/scratch:size=1m,mode=1700,noexec", "--shm-size", "4m")
	e.holds("mode", got, "1700\n")
	e.holds("options", got, "noexec")
	e.holds("size", got, "size=1024k")
	e.holds("size of /dev/shm", got, " 4096 ")
}

// With tmpcopyup a tmpfs begins with what the image has at its place.
func TestTmpfsCopiesUp(t *testing.T) {
	e := newEngine(t)
	e.holds("passwd", e.says("cat /etc/passwd; touch /etc/new", "--read-only", "--tmpfs", "/etc:tmpcopyup"), "someone")
}
