package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func (b *box) mount(source, destination, kind string, options ...string) *specs.Mount {
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Source: source, Destination: destination, Type: kind, Options: options})
	return &b.spec.Mounts[len(b.spec.Mounts)-1]
}

// nested is a directory of the host with a tmpfs mounted on sub, both with a file.
func nested(b *box) string {
	b.t.Helper()
	dir := filepath.Join(b.bundle, "nested")
	b.file(dir+"/file", "top ")
	must(b.t, os.Mkdir(dir+"/sub", 0o755))
	must(b.t, syscall.Mount("tmpfs", dir+"/sub", "tmpfs", 0, "mode=755"))
	b.t.Cleanup(func() { must(b.t, syscall.Unmount(dir+"/sub", syscall.MNT_DETACH)) })
	b.file(dir+"/sub/file", "sub ")
	return dir
}

// flagsOf prints the options of the mounts at and below /data.
const flagsOf = "awk '$5 ~ \"^/data\" {print $5, $6}' /proc/self/mountinfo"

func TestMountAttributesReachTheMountsTheyAreMeantFor(t *testing.T) {
	data := func(options ...string) func(*box) {
		return func(b *box) { b.mount(nested(b), "/data", "bind", options...) }
	}
	inside(t, []row{
		{"plain", data("bind", "ro"), flagsOf, "/data ro,relatime\n"},
		{"with what is below", data("rbind", "ro"), flagsOf, "/data ro,relatime\n/data/sub rw,relatime\n"},
		{"rro", data("rbind", "rro"), flagsOf, "/data ro,relatime\n/data/sub ro,relatime\n"},
		{"rro and rw of the top", data("rbind", "rro", "rrw"), flagsOf, "/data rw,relatime\n/data/sub rw,relatime\n"},
		{
			"rnosuid, rnodev, rnoexec", data("rbind", "rnosuid", "rnodev", "rnoexec"), flagsOf,
			"/data rw,nosuid,nodev,noexec,relatime\n/data/sub rw,nosuid,nodev,noexec,relatime\n",
		},
		{"rnoatime", data("rbind", "rnoatime"), flagsOf, "/data rw,noatime\n/data/sub rw,noatime\n"},
		{"rstrictatime", data("rbind", "rstrictatime"), flagsOf, "/data rw\n/data/sub rw\n"},
		{"rrelatime after rnoatime", data("rbind", "rnoatime", "rrelatime"), flagsOf, "/data rw,relatime\n/data/sub rw,relatime\n"},
		{"rnodiratime", data("rbind", "rnodiratime"), flagsOf, "/data rw,nodiratime,relatime\n/data/sub rw,nodiratime,relatime\n"},
		{"rnosymfollow", data("rbind", "rnosymfollow"), flagsOf, "/data rw,relatime,nosymfollow\n/data/sub rw,relatime,nosymfollow\n"},
		{"nosymfollow", func(b *box) {
			data("bind", "nosymfollow")(b)
			must(b.t, os.Symlink("file", filepath.Join(b.bundle, "nested/link")))
		}, "cat /data/file; cat /data/link 2>&1", "top cat: can't open '/data/link': Too many levels of symbolic links\n"},
		{"tmpfs", func(b *box) {
			b.mount("tmpfs", "/data", "tmpfs", "nosuid", "strictatime", "mode=0711", "size=64k", "uid=7,gid=8")
		}, flagsOf + "; stat -c '%a %u:%g' /data", "/data rw,nosuid\n711 7:8\n"},
	})
}

func TestPropagationIsWhatTheConfigSays(t *testing.T) {
	// The optional fields of mountinfo stand between the options and the dash.
	show := "awk '$5 == \"/data\" {for (i = 7; $i != \"-\"; i++) print $i; print \"end\"}' /proc/self/mountinfo | sed 's/:.*//'"
	data := func(options ...string) func(*box) {
		return func(b *box) { b.mount(nested(b), "/data", "bind", append(options, "rbind")...) }
	}
	root := func(value string) func(*box) {
		return func(b *box) { b.spec.Linux.RootfsPropagation = value }
	}
	showRoot := strings.Replace(show, "/data", "/", 1)
	inside(t, []row{
		{"shared", data("shared"), show, "shared\nend\n"},
		{"rshared", data("rshared"), show, "shared\nend\n"},
		{"private", data("private"), show, "end\n"},
		{"rprivate", data("rprivate"), show, "end\n"},
		{"unbindable", data("unbindable"), show, "unbindable\nend\n"},
		{"slave of a shared one", data("shared", "slave"), show, "end\n"}, // nobody is left to be the slave of
		{"root shared", root("shared"), showRoot, "shared\nend\n"},
		{"root private", root("private"), showRoot, "end\n"},
		{"root unbindable", root("unbindable"), showRoot, "unbindable\nend\n"},
	})
}

func TestLongMountOptionsArriveWhole(t *testing.T) {
	// fsconfig(2) takes 255 bytes of a value; an overlay of many layers needs more.
	inside(t, []row{{"overlay of many layers", func(b *box) {
		dir := filepath.Join(b.bundle, "layers")
		var lower []string
		for i := range 12 {
			layer := filepath.Join(dir, fmt.Sprintf("layer-with-a-rather-long-name-%02d", i))
			b.file(fmt.Sprintf("%s/file%02d", layer, i), "")
			lower = append(lower, layer)
		}
		for _, name := range []string{"upper", "work"} {
			must(b.t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		}
		option := "lowerdir=" + strings.Join(lower, ":")
		b.mount("overlay", "/data", "overlay", option, "upperdir="+dir+"/upper", "workdir="+dir+"/work", "nosuid", "noatime", "nosymfollow")
	}, "ls /data | wc -l; touch /data/new && echo written; " + flagsOf + "; mount | grep -c /data", "12\nwritten\n/data rw,nosuid,noatime,nosymfollow\n1\n"}})
}

func TestIDMappedMounts(t *testing.T) {
	owners := "stat -c '%u:%g' /data/file; stat -c '%u:%g' /data/sub/file"
	maps := func(m *specs.Mount, container, host uint32) {
		m.UIDMappings = []specs.LinuxIDMapping{{ContainerID: container, HostID: host, Size: 1000}}
		m.GIDMappings = m.UIDMappings
	}
	tmpfs := "65534:65534\n"
	inside(t, []row{
		{"by maps of its own", func(b *box) { maps(b.mount(nested(b), "/data", "bind", "rbind"), 0, 5000) }, owners, "5000:5000\n0:0\n"},
		{"recursively", func(b *box) { maps(b.mount(nested(b), "/data", "bind", "rbind", "ridmap"), 0, 5000) }, owners, "5000:5000\n5000:5000\n"},
		{"by the container's user namespace", func(b *box) {
			b.userNamespace(100000)
			b.mount(nested(b), "/data", "bind", "rbind", "idmap")
		}, owners, "0:0\n" + tmpfs},
		{"by the container's user namespace, recursively", func(b *box) {
			b.userNamespace(100000)
			b.mount(nested(b), "/data", "bind", "rbind", "ridmap")
		}, owners, "0:0\n0:0\n"},
		{"with maps in a user namespace", func(b *box) {
			b.userNamespace(100000)
			maps(b.mount(nested(b), "/data", "bind", "rbind"), 0, 100500)
		}, owners, "500:500\n" + tmpfs},
		{"without submounts in a user namespace", func(b *box) {
			b.userNamespace(100000)
			maps(b.mount(nested(b), "/data", "bind", "bind"), 0, 100500)
		}, "stat -c '%u:%g' /data/file; ls /data/sub | wc -l", "500:500\n0\n"},
		{"source that the container's root may not enter", func(b *box) {
			b.userNamespace(100000)
			private := filepath.Join(b.bundle, "private")
			b.file(private+"/in/file", "")
			must(b.t, os.Chmod(private, 0o700))
			b.mount(private+"/in", "/data", "bind", "bind", "idmap")
		}, "stat -c '%u:%g' /data/file", "0:0\n"},
		{"source inside the root", func(b *box) {
			b.file("srv/file", "")
			maps(b.mount(b.rootfs+"/srv", "/data", "bind", "bind"), 0, 5000)
		}, "stat -c '%u:%g' /data/file /srv/file", "5000:5000\n0:0\n"},
		{"source on an earlier mount", func(b *box) {
			b.mount("tmpfs", "/fresh", "tmpfs", "mode=755")
			b.mount(nested(b), "/fresh/sub", "bind", "bind")
			maps(b.mount(b.rootfs+"/fresh/sub", "/data", "bind", "bind"), 0, 5000)
		}, "stat -c '%u:%g' /data/file /fresh/sub/file", "5000:5000\n0:0\n"},
		{"source on an earlier mount, in a user namespace", func(b *box) {
			b.userNamespace(100000)
			b.mount(nested(b), "/fresh", "bind", "bind")
			maps(b.mount(b.rootfs+"/fresh", "/data", "bind", "bind"), 0, 100500)
		}, "stat -c '%u:%g' /data/file /fresh/file", "500:500\n65534:65534\n"},
		{
			"written through the map", func(b *box) { maps(b.mount(nested(b), "/data", "bind", "bind"), 0, 5000) },
			"umask 022; touch /data/denied 2>/dev/null || echo overflow", "overflow\n",
		},
	})
}

func TestSourceInsideTheRootLeadsNowhereElse(t *testing.T) {
	inside(t, []row{
		{"absolute link", func(b *box) {
			b.file("etc/hostname", "of the image\n")
			must(b.t, os.Symlink("/etc", filepath.Join(b.rootfs, "way-out")))
			b.mount(b.rootfs+"/way-out", "/data", "bind", "bind")
		}, "cat /data/hostname", "of the image\n"},
		{"earlier mount is seen", func(b *box) {
			b.mount(nested(b), "/fresh", "bind", "bind")
			b.mount(b.rootfs+"/fresh/file", "/etc/file", "bind", "bind", "ro")
		}, "cat /etc/file", "top "},
		{"the root itself", func(b *box) { b.mount(b.rootfs, "/data", "bind", "bind") }, "test -x /data/bin/probe && echo yes", "yes\n"},
	})
}

func TestTmpfsIsFilledFromTheImage(t *testing.T) {
	inside(t, []row{{"tmpcopyup", func(b *box) {
		path := b.file("srv/dir/file", "content")
		must(b.t, os.Chmod(path, 0o604))
		must(b.t, os.Chown(path, 12, 13))
		must(b.t, os.Symlink("dir/file", filepath.Join(b.rootfs, "srv/link")))
		b.mount("tmpfs", "/srv", "tmpfs", "tmpcopyup", "ro")
	}, "cat /srv/link; stat -c ' %a %u:%g' /srv/dir/file; touch /srv/x 2>/dev/null || echo ro", "content 604 12:13\nro\n"}})
}

func TestMountsThatCannotBeMadeAreRefused(t *testing.T) {
	refused(t, []row{
		{"id maps of a tmpfs", func(b *box) {
			b.mount("tmpfs", "/data", "tmpfs").UIDMappings = []specs.LinuxIDMapping{{Size: 1}}
		}, "", "only bind mounts can have id maps"},
		{"half of the id maps", func(b *box) {
			b.mount("/etc", "/data", "bind", "bind").UIDMappings = []specs.LinuxIDMapping{{Size: 1}}
		}, "", "must have both uid and gid mappings"},
		{"idmap without any", func(b *box) { b.mount("/etc", "/data", "bind", "bind", "idmap") }, "", "must have both uid and gid mappings"},
		{"bind with a filesystem's option", func(b *box) { b.mount("/etc", "/data", "bind", "bind", "size=1m") }, "", "cannot have any filesystem-specific options"},
		{"tmpcopyup of a bind", func(b *box) { b.mount("/etc", "/data", "bind", "bind", "tmpcopyup") }, "", "tmpcopyup is for tmpfs only"},
		{"option that the filesystem does not know", func(b *box) { b.mount("tmpfs", "/data", "tmpfs", "nonsense=1") }, "", "nonsense"},
		{"unknown filesystem", func(b *box) { b.mount("x", "/data", "nosuchfs") }, "", "open filesystem nosuchfs: no such device"},
		{"source that is not there", func(b *box) { b.mount("/no/such/source", "/data", "bind", "bind") }, "", "/no/such/source"},
		{"mount label without SELinux", func(b *box) { b.spec.Linux.MountLabel = "system_u:object_r:x:s0" }, "", "selinux is disabled or not supported"},
		{"propagation of the root", func(b *box) { b.spec.Linux.RootfsPropagation = "sideways" }, "", "rootfsPropagation=sideways is not supported"},
	})
}
