package podman

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maps are the ids of a user namespace.
const maps = "0:200000:65536"

func TestUserNamespaceMapsRoot(t *testing.T) {
	e := newEngine(t)
	got := e.says("id -u; tr -s ' ' </proc/self/uid_map; stat -c '%u %g' /bin/busybox; touch /made && stat -c %u /made", "--uidmap", maps, "--gidmap", maps)
	e.same("inside", got, "0\n 0 200000 65536\n0 0\n0")
	c := e.start("c", "sleep 100", "--uidmap", maps, "--gidmap", maps)
	e.holds("outside", read(t, "/proc/"+c.is(".State.Pid")+"/status"), "\nUid:\t200000\t")
	e.same("exec", c.exec("id", "-u"), "0")
	e.same("exec as a user", e.do("exec", "--user", "someone", c.name, "id", "-u"), "1000")
}

// podman kill leaves the cleanup to conmon, which does it from a mount namespace of its own.
func TestKilledContainerWithAUserNamespaceLeavesNoMounts(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 100", "--uidmap", maps, "--gidmap", maps)
	shm := filepath.Join(storeDir(), "root", "overlay-containers", c.is(".Id"), "userdata", "shm")
	mounted := func() bool {
		points, err := mountPoints()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(points, shm)
	}
	if !mounted() {
		t.Fatalf("nothing is mounted at %s", shm)
	}
	e.do("kill", c.name)
	e.eventually(shm+" is unmounted", func() bool { return !mounted() })
}

func TestPrivilegedContainerMayDoEverything(t *testing.T) {
	e := newEngine(t)
	got := e.says("mkdir /m && mount -t tmpfs none /m && echo mounted; test -e /dev/net/tun -o -e /dev/loop-control -o -e /dev/kmsg && echo devices; grep Seccomp: /proc/self/status; echo 1 >/proc/sys/net/ipv4/ip_forward && echo sysctl", "--privileged")
	e.same("rights", got, "mounted\ndevices\nSeccomp:\t0\nsysctl")
}

func TestOrdinaryContainerMayNot(t *testing.T) {
	e := newEngine(t)
	for _, script := range []string{
		"mkdir /m && mount -t tmpfs none /m",
		"echo 1 >/proc/sys/net/ipv4/ip_forward",
		"echo b >/proc/sysrq-trigger",
		"head -c 1 /proc/kcore | grep -q .",
		"mknod /dev/disk b 254 0 && head -c 1 /dev/disk",
		"hostname elsewhere",
		"cd /sys/fs/cgroup; test ! -d pids || cd pids; echo 0 >cgroup.procs",
		"touch /sys/here",
	} {
		if got := e.once(script); got.code == 0 {
			t.Errorf("it could: %s", script)
		}
	}
}

func TestRightsAreAsAsked(t *testing.T) {
	e := newEngine(t)
	const rights = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t\\n' '  '"
	tests := []struct {
		name, want string
		options    []string
	}{
		{"ordinary", "CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2 ", nil},
		{"none", "CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 0 Seccomp: 2 ", []string{"--cap-drop", "all"}},
		{"one", "CapEff: 0000000000000001 CapBnd: 0000000000000001 NoNewPrivs: 0 Seccomp: 2 ", []string{"--cap-drop", "all", "--cap-add", "chown"}},
		{"a user", "CapEff: 0000000000000000 CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2 ", []string{"--user", "someone"}},
		{
			"no filter, no new privileges", "CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 1 Seccomp: 0 ",
			[]string{"--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"},
		},
	}
	for _, tt := range tests {
		e.same(tt.name, e.says(rights, tt.options...), tt.want)
	}
}

func TestReadOnlyRootLeavesScratchSpace(t *testing.T) {
	e := newEngine(t)
	e.same("writable", e.says("for f in /x /etc/x /tmp/x /run/x /var/tmp/x /dev/shm/x; do touch $f 2>/dev/null && echo $f; done", "--read-only"),
		"/tmp/x\n/run/x\n/var/tmp/x\n/dev/shm/x")
	if got := e.once("touch /tmp/x", "--read-only", "--read-only-tmpfs=false"); got.code == 0 {
		t.Error("/tmp could be written")
	}
}

func TestNamespacesOfTheHostAreTheHosts(t *testing.T) {
	e := newEngine(t)
	for kind, flag := range map[string]string{"pid": "pid", "ipc": "ipc", "uts": "uts", "net": "network", "cgroup": "cgroupns"} {
		const own = "readlink /proc/self/ns/"
		host := e.host("readlink", "/proc/self/ns/"+kind)
		e.same(kind+" of the host", e.says(own+kind, "--"+flag, "host"), host)
		if kind == "cgroup" {
			continue // private by default on cgroup v2 alone
		}
		if e.says(own+kind) == host {
			t.Errorf("%s: an ordinary container has the host's", kind)
		}
	}
}

func TestNamespacesAreShared(t *testing.T) {
	e := newEngine(t)
	c := e.start("c", "sleep 4321", "--ipc", "shareable")
	const all = "cd /proc/self/ns; for n in net pid ipc uts; do readlink $n; done"
	got := e.says(all+"; ps", "--network", "container:"+c.name, "--pid", "container:"+c.name, "--ipc", "container:"+c.name, "--uts", "container:"+c.name)
	e.holds("namespaces", got, c.exec("sh", "-c", all))
	e.holds("processes", got, "sleep 4321")
}

func TestSysctlsApplyInside(t *testing.T) {
	e := newEngine(t)
	got := e.says("cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced", "--sysctl", "net.core.somaxconn=77", "--sysctl", "kernel.shm_rmid_forced=1")
	e.same("sysctls", got, "77\n1")
	if strings.HasPrefix(read(t, "/proc/sys/net/core/somaxconn"), "77") {
		t.Error("the host's sysctl changed")
	}
}
