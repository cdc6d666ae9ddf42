package attacks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// CVE-2025-52881: what the runtime writes to /proc (a profile or label to attr/exec, sysctls) was sent elsewhere by
// whoever could change what is at /proc: to a plain file, so that nothing is confined, or to another file of the kernel,
// such as sysrq-trigger. Here containers share a root, and one exchanges /proc for a false one while the other starts
// with a sysctl. A runtime that opens /proc/sys/kernel/domainname by its name writes to the false one: Debian's runc
// 1.1.5 does in some of these starts.
func TestCVE_2025_52881_SysctlIsWrittenToTheKernel(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "sleep", "1000")
	falseProc(t, c.rootfs+"/false")
	c.spec.Linux.Sysctl = map[string]string{"kernel.domainname": "written"}
	stop := w.swap(c.rootfs+"/proc", c.rootfs+"/false")
	raced(t, 1, func(int) (string, error) {
		out, err := c.create()
		if err == nil {
			if name := domainname(t, c.pid()); name != "written" {
				t.Errorf("the container was created, and its domain name is %q", name)
			}
			c.delete()
		}
		return out, err
	}, procRefusals()...)
	stop()
	for _, name := range []string{"proc", "false"} { // one is it, the other was the mount point and is empty
		checkFalseProc(t, filepath.Join(c.rootfs, name))
	}
}

// domainname is the one that a process sees.
func domainname(t *testing.T, pid int) string {
	t.Helper()
	out, err := exec.Command("nsenter", "--uts", "--target", strconv.Itoa(pid), "cat", "/proc/sys/kernel/domainname").Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}

// An image without /proc and one with a link there send nothing elsewhere, either.
func TestCVE_2025_52881_SysctlIsNotWrittenToTheImage(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "sleep", "1000")
	falseProc(t, c.rootfs+"/proc")
	must(t, os.Remove(c.rootfs+"/proc/sys/kernel/domainname"))
	must(t, os.Symlink("/etc/target", c.rootfs+"/proc/sys/kernel/domainname"))
	must(t, os.WriteFile(c.rootfs+"/etc/target", []byte(untouched), 0o666))
	c.spec.Mounts = c.spec.Mounts[1:]
	c.spec.Linux.MaskedPaths, c.spec.Linux.ReadonlyPaths = nil, nil
	c.spec.Linux.Sysctl = map[string]string{"kernel.domainname": "written"}
	if out, err := c.create(); err != nil {
		t.Fatalf("create: %v: %s", err, out)
	}
	if name := domainname(t, c.pid()); name != "written" {
		t.Errorf("the container's domain name is %q", name)
	}
	if text, err := os.ReadFile(c.rootfs + "/etc/target"); err != nil || string(text) != untouched {
		t.Errorf("/etc/target holds %q, %v", text, err)
	}
	checkFalseProc(t, c.rootfs+"/proc")
}

// A name must not lead from the part of /proc/sys that is the container's to that which is the host's.
func TestCVE_2025_52881_SysctlNameDoesNotClimb(t *testing.T) {
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	must(t, err)
	for _, name := range []string{
		"net/../kernel/core_pattern", "net.//.kernel.core_pattern", "net/ipv4/../../kernel/core_pattern",
		"kernel/shmmax/../core_pattern", "fs/mqueue/../../kernel/core_pattern",
	} {
		w := newWorld(t)
		c := w.container("victim", "true")
		c.spec.Linux.Sysctl = map[string]string{name: string(before)} // what is there already
		out, err := c.run()
		if err == nil {
			t.Errorf("%s was written", name)
		}
		wantError(t, out, "sysctl")
	}
}

// A running container with the right to mount leads attr/exec to a parameter of the kernel, and exchanges the false /proc
// for the real one in a loop, while exec comes with a profile. There is no security module here to take it: each of
// these must fail, and the parameter must not change.
func TestCVE_2025_52881_ProfileIsNotSentElsewhere(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "sh", "-c", `
		mkdir -p /tmp/real /tmp/false
		mount -t proc proc /tmp/real
		mkdir -p /tmp/false/self/attr/apparmor /tmp/false/thread-self/attr/apparmor /tmp/false/self/fd
		for at in self thread-self; do
			ln -s /tmp/real/sys/kernel/domainname /tmp/false/$at/attr/exec
			ln -s /tmp/real/sys/kernel/domainname /tmp/false/$at/attr/apparmor/exec
		done
		umount -l /proc; rmdir /proc
		ln -s /tmp/real /proc
		ln -s /tmp/false /other
		touch /ready
		exec sleep 1000`)
	c.allow("CAP_SYS_ADMIN")
	c.spec.Linux.Sysctl = map[string]string{"kernel.domainname": untouched}
	c.spec.Linux.MaskedPaths, c.spec.Linux.ReadonlyPaths = nil, nil
	c.running()
	w.eventually("the container is ready to attack", func() bool {
		_, err := os.Stat(c.rootfs + "/ready")
		return err == nil
	})
	defer w.swap(c.rootfs+"/proc", c.rootfs+"/other")()
	raced(t, 0, func(i int) (string, error) {
		out, err := c.exec([]string{"--apparmor", fmt.Sprintf("profile-%d", i)}, "true")
		if err == nil {
			t.Error("the process started without its profile")
		}
		if name := domainname(t, c.pid()); name != untouched {
			t.Errorf("the kernel's parameter is %q now", name)
		}
		return out, err
	}, "apply apparmor profile")
}
