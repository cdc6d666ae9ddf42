package podman

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// pod makes a pod with an infra container, which goes with the test.
func (e *engine) pod(name string, options ...string) string {
	e.Helper()
	testutil.Need(e, exists("/usr/libexec/podman/catatonit"), "catatonit, the program of a pod's infra container")
	name = e.prefix + "-" + name
	e.atEnd("pod", "rm", "--force", "--time", "0", "--ignore", name)
	e.do(append([]string{"pod", "create", "--name", name, "--cgroup-parent", "/" + cgroupParent()}, options...)...)
	return name
}

// inPod starts a container in the pod, which is beneath the pod's cgroup.
func (e *engine) inPod(pod, name, script string) *container {
	e.Helper()
	c := &container{engine: e, name: e.prefix + "-" + name}
	e.do("run", "--detach", "--pod", pod, "--name", c.name, "localhost/migrate/busybox", "sh", "-c", script)
	return c
}

func TestPodsContainersShareTheirNamespaces(t *testing.T) {
	e := newEngine(t)
	pod := e.pod("p")
	a := e.inPod(pod, "a", "echo hello | nc -l -p 7; sleep 100")
	b := e.inPod(pod, "b", "sleep 100")
	e.eventually("one reaches the other over their loopback", func() bool {
		return e.try("exec", b.name, "nc", "127.0.0.1", "7").stdout == "hello\n"
	})
	const shared = "cd /proc/self/ns; readlink net ; readlink ipc; readlink uts"
	e.same("namespaces", a.exec("sh", "-c", shared), b.exec("sh", "-c", shared))
	if a.exec("readlink", "/proc/self/ns/pid") == b.exec("readlink", "/proc/self/ns/pid") {
		t.Error("they share the pid namespace unasked")
	}
	e.holds("a's cgroup", a.is(".State.CgroupPath"), e.do("pod", "inspect", "--format", "{{.ID}}", pod))
	e.holds("top", e.do("pod", "top", pod, "args"), "sleep 100")
	e.do("pod", "stats", "--no-stream", pod)
}

func TestPodLivesAndDiesAsOne(t *testing.T) {
	e := newEngine(t)
	pod := e.pod("p", "--share", "net,ipc,uts,pid")
	a := e.inPod(pod, "a", ticking)
	b := e.inPod(pod, "b", "sleep 5432")
	e.holds("processes that a sees", a.exec("ps"), "sleep 5432")
	e.do("pod", "pause", pod)
	e.same("state of a", a.is(".State.Status"), "paused")
	e.do("pod", "unpause", pod)
	e.do("pod", "stop", "--time", "0", pod)
	e.do("wait", "--condition", "exited", b.name) // it is "stopped" until podman has cleared up after it
	e.same("state of b", b.is(".State.Status"), "exited")
	e.do("pod", "start", pod)
	e.same("state of b", b.is(".State.Status"), "running")
	e.do("pod", "rm", "--force", "--time", "0", pod)
	if strings.Contains(processes(t), "sleep 5432") {
		t.Error("a process outlived its pod")
	}
}

func TestPodsContainerIsRestoredIntoAPod(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	pod := e.pod("p")
	a := e.inPod(pod, "a", ticking)
	b := e.inPod(pod, "b", "sleep 100")
	a.saying("tick 2")
	e.do("container", "checkpoint", a.name)
	e.do("container", "restore", a.name)
	a.goesOn()
	const net = "readlink /proc/self/ns/net"
	e.same("network namespace after the restore", a.exec("sh", "-c", net), b.exec("sh", "-c", net))

	archive := filepath.Join(t.TempDir(), "a.tar.gz")
	e.do("container", "checkpoint", "--export", archive, a.name)
	e.do("rm", a.name)
	other := e.do("pod", "inspect", "--format", "{{.ID}}", e.pod("other")) // restore takes no name
	e.do("container", "restore", "--import", archive, "--pod", other)
	a.goesOn()
	e.same("its pod", a.is(".Pod"), other)
}
