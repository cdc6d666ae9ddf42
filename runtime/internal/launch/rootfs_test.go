package launch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func bind(source, dest string, options ...string) specs.Mount {
	return specs.Mount{Source: source, Destination: dest, Type: "bind", Options: append([]string{"bind"}, options...)}
}

func TestRootIsWhatTheSpecSays(t *testing.T) {
	volume := t.TempDir()
	must(t, os.WriteFile(filepath.Join(volume, "file"), []byte("from the host"), 0o644))
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	tests := []struct {
		name   string
		change func(*box)
		script string
		want   string
	}{
		{"devices", nil, "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; for l in ptmx fd stdin; do readlink /dev/$l; done; stat -c %a /dev/null", "pts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n666\n"},
		{"own device", func(b *box) {
			mode := os.FileMode(0o640)
			id := uint32(1000)
			b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/own", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &id, GID: &id}}
		}, "stat -c '%F %a %u:%g %t,%T' /dev/own", "character special file 640 1000:1000 1,3\n"},
		{"a volume in the place of a default device", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, bind("/dev/urandom", "/dev/random"))
		}, "stat -c %t,%T /dev/random", "1,9\n"},
		{"a volume in the place of a default device in a user namespace", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, bind("/dev/urandom", "/dev/random"))
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = ids, ids
			b.giveAway(100000)
		}, "stat -c %t,%T /dev/random", "1,9\n"},
		{"what a volume has in the place of a default device", func(b *box) {
			must(t, os.WriteFile(filepath.Join(volume, "zero"), nil, 0o644))
			b.spec.Mounts = append(b.spec.Mounts[:1:1], b.spec.Mounts[5], bind(volume, "/d"))
			must(t, os.Remove(filepath.Join(b.launch.Rootfs, "dev")))
			must(t, os.Symlink("d", filepath.Join(b.launch.Rootfs, "dev")))
		}, "stat -c '%n %t,%T' /dev/zero /dev/full", "/dev/zero 0,0\n/dev/full 1,7\n"},
		{"sysfs that a later mount covers", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/sys", Type: "tmpfs", Source: "tmpfs"})
			b.spec.Linux.MaskedPaths = []string{"/sys/firmware", "/proc/keys"}
		}, "ls /sys; cat /proc/keys; grep -c ' /sys tmpfs' /proc/mounts", "1\n"},
		{"procfs below what a later mount covers", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/a/proc", Type: "proc", Source: "proc"},
				specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs"})
			b.spec.Linux.MaskedPaths = []string{"/a/proc/keys", "/proc/keys"}
		}, "ls /a; cat /proc/keys; echo well", "well\n"},
		{"bind", func(b *box) { b.spec.Mounts = append(b.spec.Mounts, bind(volume, "/data/deep")) }, "cat /data/deep/file; touch /data/deep/new && echo w", "from the hostw\n"},
		{"read-only bind", func(b *box) { b.spec.Mounts = append(b.spec.Mounts, bind(volume, "/data", "ro")) }, "cat /data/file; touch /data/x 2>/dev/null || echo ro", "from the hostro\n"},
		{"recursive read-only bind", func(b *box) { b.spec.Mounts = append(b.spec.Mounts, bind(volume, "/data", "rbind", "rro", "nosuid")) }, "touch /data/x 2>/dev/null || echo ro; grep -c -E ' /data [a-z0-9]+ ro,nosuid' /proc/mounts; grep -c ' /data .*nosuid' /proc/mounts", "ro\n1\n1\n"},
		{"bind of a file", func(b *box) { b.spec.Mounts = append(b.spec.Mounts, bind(volume+"/file", "/etc/one")) }, "cat /etc/one", "from the host"},
		{"bind with a relative source", func(b *box) { b.spec.Mounts = append(b.spec.Mounts, bind("rootfs/etc", "/data")) }, "head -c 4 /data/passwd", "root"},
		{"mount point behind a link", func(b *box) {
			must(t, os.Symlink("/tmp", filepath.Join(b.launch.Rootfs, "link")))
			b.spec.Mounts = append(b.spec.Mounts, bind(volume, "/link/in"))
		}, "cat /tmp/in/file", "from the host"},
		{"link that leads out stays in", func(b *box) {
			must(t, os.Symlink("../../../../../../../../tmp", filepath.Join(b.launch.Rootfs, "link")))
			b.spec.Mounts = append(b.spec.Mounts, bind(volume, "/link/in2"))
		}, "cat /tmp/in2/file", "from the host"},
		{"tmpfs keeps the image's mode", func(b *box) {
			must(t, os.Chmod(filepath.Join(b.launch.Rootfs, "tmp"), 0o777|os.ModeSticky))
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"})
		}, "stat -c %a /tmp", "1777\n"},
		{"tmpcopyup", func(b *box) {
			must(t, os.Mkdir(filepath.Join(b.launch.Rootfs, "etc/sub"), 0o751))
			must(t, os.WriteFile(filepath.Join(b.launch.Rootfs, "etc/sub/f"), []byte("up"), 0o640))
			must(t, os.Symlink("f", filepath.Join(b.launch.Rootfs, "etc/sub/l")))
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
		}, "cat /etc/sub/l; stat -c ' %a' /etc/sub /etc/sub/f; grep -c ' /etc tmpfs' /proc/mounts", "up 751\n 640\n1\n"},
		{"read-only root", func(b *box) { b.spec.Root.Readonly = true }, "touch /x 2>/dev/null || echo ro; touch /dev/x && echo dev", "ro\ndev\n"},
		{"read-only tmpfs", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}})
		}, "touch /tmp/x 2>/dev/null || echo ro", "ro\n"},
		{"masked and read-only paths", func(b *box) {
			b.spec.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/scsi", "/no/such"}
			b.spec.Linux.ReadonlyPaths = []string{"/proc/sys", "/proc/no"}
		}, "cat /proc/keys; ls /sys/firmware; ls /proc/scsi 2>/dev/null; echo 1 2>/dev/null >/proc/sys/kernel/domainname || echo ro", "ro\n"},
		{"sysctl", func(b *box) {
			b.spec.Linux.Sysctl = map[string]string{"kernel.shm_rmid_forced": "1", "net/ipv4/ip_unprivileged_port_start": "0"}
		}, "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start", "1\n0\n"},
		{"cgroup in a cgroup namespace", func(b *box) {
			b.spec.Mounts = append(b.spec.Mounts, cgroupMount())
		}, "test -d /sys/fs/cgroup && ls /sys/fs/cgroup | grep -c -E '^(memory|cgroup.procs)$'", "1\n"},
		{"cgroup without a cgroup namespace", func(b *box) {
			b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[:5]
			b.spec.Mounts = append(b.spec.Mounts, cgroupMount())
		}, "ls /sys/fs/cgroup | grep -c -E '^(memory|cgroup.procs)$'", "1\n"},
		{"no pivot", func(b *box) { b.launch.NoPivot = true }, "ls / | grep -c passwd; cat /etc/passwd | head -c 4; pwd", "0\nroot/\n"},
		{"time namespace", func(b *box) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 40000000}}
		}, "awk '{print ($1 > 40000000)}' /proc/uptime", "1\n"},
		{"user namespace", func(b *box) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			b.spec.Linux.UIDMappings, b.spec.Linux.GIDMappings = ids, ids
			b.giveAway(100000)
		}, "id -u; cat /proc/self/uid_map | awk '{print $1, $2, $3}'; test -c /dev/null && echo dev; touch /x && stat -c %u /x", "0\n0 100000 65536\ndev\n0\n"},
		{"id-mapped bind", func(b *box) {
			m := bind(volume, "/data")
			m.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 4242, Size: 1}}
			m.GIDMappings = m.UIDMappings
			b.spec.Mounts = append(b.spec.Mounts, m)
		}, "stat -c %u:%g /data/file", "4242:4242\n"},
		{"domainname and umask", func(b *box) {
			b.spec.Domainname = "example"
			umask := uint32(0o077)
			b.spec.Process.User.Umask = &umask
		}, "cat /proc/sys/kernel/domainname; umask", "example\n0077\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, "sh", "-c", tt.script)
			if tt.change != nil {
				tt.change(b)
			}
			status, out := b.run()
			if out != tt.want {
				t.Errorf("exit status %d, the container printed:\n%s\nwant:\n%s", status, out, tt.want)
			}
		})
	}
}

func cgroupMount() specs.Mount {
	return specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}}
}

// giveAway makes the root readable for a user namespace: its directories belong to the mapped root.
func (b *box) giveAway(id int) {
	b.t.Helper()
	must(b.t, filepath.WalkDir(b.launch.Rootfs, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, id, id)
	}))
	for dir := b.dir; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		must(b.t, os.Chmod(dir, 0o755))
	}
}

func TestNothingOfTheHostIsLeftInside(t *testing.T) {
	// A descriptor that the runtime's caller left inheritable, with a number far from init's own.
	leak, err := os.Open(t.TempDir())
	must(t, err)
	defer leak.Close()
	must(t, unix.Dup3(int(leak.Fd()), 900, 0))
	defer unix.Close(900)
	b := newBox(t, "sh", "-c", "ls /proc/self/fd | wc -l; env | grep -c -E '_MIGRATE|GOMAXPROCS'")
	p, out, err := b.create()
	must(t, err)
	if _, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/900", p.Pid)); err == nil {
		t.Error("init holds a descriptor of its starter's caller while it waits")
	}
	must(t, b.open(p))
	_, _ = p.Wait()
	if text := out.text(); text != "4\n0\n" { // 0, 1, 2 and the directory that is listed; no variable of ours
		t.Errorf("the container printed:\n%s", text)
	}
}

func TestPassedFilesStartAtThree(t *testing.T) {
	b := newBox(t, "sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd | wc -l")
	for _, text := range []string{"first ", "second "} {
		path := filepath.Join(t.TempDir(), "f")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		b.launch.ExtraFiles = append(b.launch.ExtraFiles, f)
	}
	if _, out := b.run(); out != "first second 6\n" {
		t.Errorf("the container printed %q", out)
	}
}

func TestLeakedDescriptorIsNoWorkingDirectory(t *testing.T) {
	for fd := 3; fd < 16; fd++ {
		b := newBox(t, "true")
		b.spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd)
		if p, _, err := b.create(); err == nil {
			must(t, b.open(p))
			_, _ = p.Wait()
			t.Errorf("descriptor %d of the runtime became a working directory", fd)
		}
	}
}

func TestMountsOverProcAreRefused(t *testing.T) {
	for _, dest := range []string{"/proc", "/proc/self/attr", "/proc/sys"} {
		b := newBox(t, "true")
		b.spec.Mounts = append(b.spec.Mounts, bind(t.TempDir(), dest))
		if _, _, err := b.create(); err == nil || !strings.Contains(err.Error(), "cannot be mounted because it is") {
			t.Errorf("bind on %s: %v", dest, err)
		}
	}
	b := newBox(t, "true")
	must(t, os.Remove(filepath.Join(b.launch.Rootfs, "proc")))
	must(t, os.Symlink("/tmp", filepath.Join(b.launch.Rootfs, "proc")))
	if _, _, err := b.create(); err == nil || !strings.Contains(err.Error(), "ordinary directory") {
		t.Errorf("proc on a link: %v", err)
	}
}
