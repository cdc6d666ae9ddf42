package attacks

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// untouched is what the files of a false procfs hold before and after an attack.
const untouched = "false"

// falseProc makes a directory that looks like a procfs as far as a runtime writes to one.
func falseProc(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{
		"self/attr/exec", "self/attr/apparmor/exec", "self/attr/current", "self/setgroups", "self/status",
		"self/task/1/attr/exec", "thread-self/attr/exec", "thread-self/attr/apparmor/exec",
		"sys/kernel/domainname", "sys/kernel/cap_last_cap", "sys/net/ipv4/ip_forward",
		"kcore", "keys", "timer_list", "sysrq-trigger",
	} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(untouched), 0o666))
	}
}

// checkFalseProc fails the test when the runtime took the directory for a procfs.
func checkFalseProc(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != untouched {
			t.Errorf("the runtime wrote %q to %s: %v", text, path, err)
		}
		return nil
	}))
}

// CVE-2019-16884: an image declares a volume on /proc, and in it brings the file that AppArmor is switched by. The
// runtime wrote the profile's name there, nothing was confined, and the container started. Whoever mounts what the spec
// says and writes to /proc/self/attr/exec starts all of these.
func TestCVE_2019_16884_FalseProcIsRefused(t *testing.T) {
	for name, mount := range map[string]specs.Mount{
		"volume on /proc":               {Destination: "/proc", Type: "bind", Options: []string{"rbind"}},
		"volume on a spelling of it":    {Destination: "/tmp/..//proc/.", Type: "bind", Options: []string{"rbind"}},
		"volume on a link to it":        {Destination: "/run/link", Type: "bind", Options: []string{"rbind"}},
		"volume on /proc/self":          {Destination: "/proc/self", Type: "bind", Options: []string{"rbind"}},
		"volume on /proc/self/attr":     {Destination: "/proc/self/attr", Type: "bind", Options: []string{"rbind"}},
		"volume on /proc/thread-self":   {Destination: "/proc/thread-self/attr", Type: "bind", Options: []string{"rbind"}},
		"volume on /proc/sys":           {Destination: "/proc/sys", Type: "bind", Options: []string{"rbind"}},
		"tmpfs on /proc":                {Destination: "/proc", Type: "tmpfs", Source: "tmpfs"},
		"tmpfs on /proc/self/attr":      {Destination: "/proc/self/attr", Type: "tmpfs", Source: "tmpfs"},
		"a process's directory of it":   {Destination: "/proc", Type: "bind", Source: "/proc/self", Options: []string{"bind"}},
		"a kernel's directory of it":    {Destination: "/proc", Type: "bind", Source: "/proc/sys", Options: []string{"bind"}},
		"another of the kernel's trees": {Destination: "/proc", Type: "sysfs", Source: "sysfs"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			falseProc(t, w.volume(""))
			c := w.container("victim", "true")
			must(t, os.Symlink("../proc", c.rootfs+"/run/link"))
			if mount.Source == "" {
				mount.Source = w.volume("")
			}
			c.spec.Mounts = append(c.spec.Mounts, mount)
			out, err := c.run()
			if err == nil {
				t.Error("the container started")
			}
			wantError(t, out, "cannot be mounted because it is")
			checkFalseProc(t, w.volume(""))
		})
	}
}

// The same by an image that brings the files itself, where the spec mounts no /proc at all. This machine may have no
// AppArmor: a profile then cannot be applied, and that must be an error, for the container would run unconfined.
func TestCVE_2019_16884_ProfileIsNotWrittenToTheImage(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "true")
	falseProc(t, c.rootfs+"/proc")
	c.spec.Mounts = c.spec.Mounts[1:]
	c.spec.Linux.MaskedPaths, c.spec.Linux.ReadonlyPaths = nil, nil
	c.spec.Process.ApparmorProfile = "no-such-profile"
	out, err := c.run()
	if err == nil {
		t.Error("the container started without its profile")
	}
	wantError(t, out, "apparmor")
	checkFalseProc(t, c.rootfs+"/proc")
}

// And by a running container with the right to mount, which has put its own tree over /proc when exec comes.
func TestCVE_2019_16884_ExecDoesNotWriteToTheContainersProc(t *testing.T) {
	w := newWorld(t)
	falseProc(t, w.volume(""))
	c := w.container("victim", "sh", "-c", "mount -o bind /volume /proc && echo >/volume/mounted && sleep 1000")
	c.allow("CAP_SYS_ADMIN")
	c.spec.Mounts = append(c.spec.Mounts, bindMount(w.volume(""), "/volume"))
	c.running()
	w.eventually("the container covers its /proc", func() bool {
		_, err := os.Stat(w.volume("mounted"))
		return err == nil
	})
	must(t, os.Remove(w.volume("mounted")))
	out, err := c.exec([]string{"--apparmor", "no-such-profile"}, "true")
	if err == nil {
		t.Error("the process started without its profile")
	}
	wantError(t, out, "apparmor")
	if out, err := c.exec([]string{"--additional-gids", "4242"}, "id", "-G"); err != nil || out != "0 4242\n" {
		t.Errorf("groups of a process whose /proc is false: %q, %v", out, err)
	}
	checkFalseProc(t, w.volume(""))
}
