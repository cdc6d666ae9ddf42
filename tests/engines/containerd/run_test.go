package containerd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/sandbox"
)

func TestRunTakesWhatCtrAsksFor(t *testing.T) {
	tests := []struct {
		name   string
		flags  []string
		script string
		want   string
		code   int
	}{
		{"exit code", nil, "exit 3", "", 3},
		{"killed by a signal", nil, "kill -KILL $$; sleep 5; true", "", 0}, // the kernel spares a first process
		{"environment", []string{"--env", "A=b"}, "echo $A", "b\n", 0},
		{"working directory", []string{"--cwd", "/var/new"}, "pwd", "/var/new\n", 0},
		{"read-only root", []string{"--read-only"}, "touch /a", "touch: /a: Read-only file system\n", 1},
		{"bind mount", []string{"--mount", "type=bind,src=" + filepath.Dir(sandbox.Runtime()) + ",dst=/host,options=rbind:ro"}, "ls /host/migrate; touch /host/a 2>&1", "/host/migrate\ntouch: /host/a: Read-only file system\n", 1},
		{"tmpfs", []string{"--mount", "type=tmpfs,src=tmpfs,dst=/t,options=size=1m:mode=1700"}, "stat -c %a /t; df -k /t | awk 'END {print $2}'", "1700\n1024\n", 0},
		{"seccomp", []string{"--seccomp"}, "unshare -U true 2>&1; grep Seccomp: /proc/self/status", "unshare: unshare(0x10000000): Operation not permitted\nSeccomp:\t2\n", 0},
		{"capabilities", []string{"--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_NET_ADMIN"}, "grep CapEff /proc/self/status", "CapEff:\t00000000a80435fa\n", 0},
		{"new privileges", []string{"--allow-new-privs"}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n", 0},
		{"user namespace", []string{"--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"}, "id -u; tr -s ' ' < /proc/self/uid_map; touch /a && ls -n /a | tr -s ' ' | cut -d ' ' -f 3", "0\n 0 100000 65536\n0\n", 0},
		{"network of the host", []string{"--net-host"}, "ip addr show lo | grep -c 127.0.0.1", "1\n", 0},
		{"network of its own", nil, "ls /sys/class/net; cat /proc/net/tcp | wc -l", "lo\n1\n", 0},
		{"device", []string{"--device", "/dev/fuse"}, "test -c /dev/fuse && echo there", "there\n", 0},
		{"privileged", []string{"--privileged"}, "mount -t tmpfs none /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs none /mnt && echo mounted", "mounted\n", 0},
		{"chroot instead of pivot_root", []string{"--no-pivot"}, "echo there", "there\n", 0},
		{"hostname and pid", nil, "echo $$", "1\n", 0},
		{"shared root", []string{"--rootfs-propagation", "rshared"}, "grep ' / / ' /proc/self/mountinfo | grep -c shared:", "1\n", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEngine(t, "run-"+strings.ReplaceAll(tt.name, " ", "-"))
			out, code := e.run(tt.script, tt.flags...)
			if code != tt.code || out != tt.want {
				t.Errorf("exit code %d, output:\n%s\nwant %d:\n%s", code, out, tt.code, tt.want)
			}
		})
	}
}

func TestRunTellsWhyThereIsNoContainer(t *testing.T) {
	tests := []struct {
		name  string
		flags []string
		want  []string
	}{
		{"mount", []string{"--mount", "type=bind,src=/no/such/source,dst=/x,options=rbind"}, []string{"OCI runtime create failed", "/no/such/source", "no such file or directory"}},
		{"device", []string{"--with-ns", "network:/no/such/namespace"}, []string{"OCI runtime create failed", "/no/such/namespace", "no such file or directory"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEngine(t, "fail-"+tt.name)
			out, code := e.run("true", tt.flags...)
			for _, want := range tt.want {
				if code != 1 || !strings.Contains(out, want) {
					t.Errorf("exit code %d, %q does not say %q", code, out, want)
				}
			}
		})
	}
	t.Run("program", func(t *testing.T) {
		e := newEngine(t, "fail-program")
		args := e.runArgs("", "--rm")
		out, code := e.try(append(args[:len(args)-3], "/no/such/program")...)
		if want := `exec: "/no/such/program": stat /no/such/program: no such file or directory`; code != 1 || !strings.Contains(out, want) {
			t.Errorf("exit code %d, %q does not say %q", code, out, want)
		}
	})
}

func TestCgroupIsWhereCtrSays(t *testing.T) {
	e := newEngine(t, "by-path")
	group := filepath.Join(namespace(), "by/path")
	e.detach("sleep 1000", "--cgroup", "/"+group)
	if made := testutil.Cgroups(group); len(made) == 0 {
		t.Errorf("there is no cgroup %s", group)
	}
	e.remove(e.id)
	if left := testutil.Cgroups(group); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestLimitsReachTheCgroups(t *testing.T) {
	e := newEngine(t, "limits")
	e.detach("sleep 1000", "--memory-limit", "52428800", "--cpu-quota", "50000", "--cpu-period", "100000", "--cpu-shares", "512")
	type limit struct{ controller, file, want string }
	limits := []limit{
		{"memory", "memory.limit_in_bytes", "52428800"},
		{"cpu", "cpu.cfs_quota_us", "50000"},
		{"cpu", "cpu.cfs_period_us", "100000"},
		{"cpu", "cpu.shares", "512"},
	}
	counted := []string{"memory.usage_in_bytes", "cpuacct.usage", "52428800", "pids.current"}
	if testutil.Cgroup2Alone() {
		limits = []limit{{"memory", "memory.max", "52428800"}, {"cpu", "cpu.max", "50000 100000"}}
		counted = []string{"memory.usage", "cpu.usage_usec", "52428800", "pids.current"}
	}
	for _, tt := range limits {
		if got := e.group(tt.controller, tt.file); got != tt.want {
			t.Errorf("%s is %s, want %s", tt.file, got, tt.want)
		}
	}
	metrics := e.do("tasks", "metrics", e.id)
	for _, want := range counted {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s:\n%s", want, metrics)
		}
	}
}

func TestOutOfMemoryIsAnEvent(t *testing.T) {
	e := newEngine(t, "oom")
	events := e.command(t.Context(), "events")
	file, err := os.Create(filepath.Join(t.TempDir(), "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	events.Stdout = file
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = events.Process.Kill()
		_ = events.Wait()
	}()
	seen := func(what string) func() bool {
		return func() bool {
			text, _ := os.ReadFile(file.Name())
			return strings.Contains(string(text), what)
		}
	}
	// ctr does not say when it has subscribed.
	e.with("oom-probe").detach("sleep 1000")
	e.eventually("events come", seen("/tasks/"))
	// The shim asks for notifications after start, and does not say when it has.
	e.detach("while :; do tail /dev/zero; sleep 0.1; done", "--memory-limit", "16777216")
	e.eventually("/tasks/oom", seen("/tasks/oom"))
}

func TestRuntimesRootIsWhereCtrSays(t *testing.T) {
	e := newEngine(t, "root")
	root := filepath.Join(sandbox.Dir(), "state")
	e.detach("sleep 1000", "--runc-root", root)
	state := filepath.Join(root, namespace(), e.id, "state.json")
	if _, err := os.Stat(state); err != nil {
		t.Error(err)
	}
	e.remove(e.id)
	if _, err := os.Stat(filepath.Dir(state)); !os.IsNotExist(err) {
		t.Errorf("state of a removed container: %v", err)
	}
}
