package attacks

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// allCapabilities are those of a privileged container: every one that we have ourselves.
func allCapabilities() specs.LinuxCapabilities {
	supported, err := capability.ListSupported()
	if err != nil {
		return specs.LinuxCapabilities{}
	}
	own, err := capability.NewPid2(0)
	if err != nil || own.Load() != nil {
		return specs.LinuxCapabilities{}
	}
	var names []string
	for _, c := range supported {
		if own.Get(capability.PERMITTED, c) {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

func TestPrivilegedContainerOfTheHarnessHasCapabilities(t *testing.T) {
	if all := allCapabilities(); len(all.Effective) == 0 {
		t.Error("this process has no capabilities to give")
	}
}

// CVE-2022-29162: exec --cap made the capability inheritable, too. A program of the image with inheritable capabilities in
// its attributes then gave it to any user in the container.
func TestCVE_2022_29162_ExecMakesNothingInheritable(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "sleep", "1000")
	c.spec.Process.NoNewPrivileges = false
	blessed := filepath.Join(c.rootfs, "root/cat") // the name makes busybox cat
	busybox, err := os.ReadFile(filepath.Join(c.rootfs, "bin/busybox"))
	must(t, err)
	must(t, os.WriteFile(blessed, busybox, 0o755))
	// struct vfs_cap_data: revision 2 and "effective"; CAP_NET_RAW is inheritable.
	attribute := make([]byte, 20)
	binary.LittleEndian.PutUint32(attribute, 0x02000001)
	binary.LittleEndian.PutUint32(attribute[8:], 1<<unix.CAP_NET_RAW)
	must(t, unix.Setxattr(blessed, "security.capability", attribute, 0))
	c.running()
	const status = "/proc/self/status"
	for name, options := range map[string][]string{
		"root":    {"--cap", "CAP_NET_RAW"},
		"user":    {"--cap", "CAP_NET_RAW", "--user", "1000:1000"},
		"no caps": {"--user", "1000:1000"},
	} {
		out, err := c.exec(options, "cat", status)
		if err != nil || !strings.Contains(out, "CapInh:\t0000000000000000") || !strings.Contains(out, "CapAmb:\t0000000000000000") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		bounding := strings.Contains(name, "caps") // without --cap the bounding set is the container's, which lacks it
		if got := capabilitySet(t, out, "CapBnd"); got&(1<<unix.CAP_NET_RAW) == 0 != bounding {
			t.Errorf("%s: bounding set is %x", name, got)
		}
	}
	out, err := c.exec([]string{"--cap", "CAP_NET_RAW", "--user", "1000:1000"}, "/root/cat", status)
	if err != nil || capabilitySet(t, out, "CapEff") != 0 {
		t.Errorf("a user regained capabilities: %v: %s", err, out)
	}
	// A process that has it inheritable, as exec made it, does regain it: the attack works.
	process := filepath.Join(w.dir, "process.json")
	must(t, os.WriteFile(process, []byte(`{"args":["/root/cat","`+status+`"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":1000,"gid":1000},
		"capabilities":{"bounding":["CAP_NET_RAW"],"inheritable":["CAP_NET_RAW"]}}`), 0o644))
	if out, err := w.migrate("exec", "--process", process, c.id); err != nil || capabilitySet(t, out, "CapEff") != 1<<unix.CAP_NET_RAW {
		t.Errorf("nothing is regained by the way that is open: %v: %s", err, out)
	}
}

// capabilitySet reads a line of /proc/PID/status.
func capabilitySet(t *testing.T, status, name string) uint64 {
	t.Helper()
	_, rest, _ := strings.Cut(status, name+":\t")
	text, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(text, 16, 64)
	must(t, err)
	return set
}
