package containerd

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/testutil"
)

// counting counts in memory, and writes down how far it came.
const counting = `i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done`

func needCRIU(t *testing.T) {
	t.Helper()
	_, err := criu.Locate("")
	testutil.Need(t, err == nil, "CRIU")
}

func (e *engine) count() int {
	e.t.Helper()
	out, _ := e.exec("cat /tmp/count")
	n, _ := strconv.Atoi(strings.TrimSpace(out))
	return n
}

// counts waits until the container has counted beyond n, and returns how far it is.
func (e *engine) counts(n int) (now int) {
	e.t.Helper()
	e.eventually("the container counts beyond "+strconv.Itoa(n), func() bool { now = e.count(); return now > n })
	return now
}

func TestTaskCheckpointEndsTheTaskWhenAsked(t *testing.T) {
	needCRIU(t)
	e := newEngine(t, "checkpoint-exit")
	e.detach(counting)
	e.counts(3)
	out := e.do("tasks", "checkpoint", "--exit", e.id)
	if !strings.Contains(out, "containerd.io/checkpoint/"+e.id) {
		t.Errorf("ctr names no image: %s", out)
	}
	e.eventually("the task ends", func() bool { return e.status(e.id) == "STOPPED" })
}

func TestTaskCheckpointLeavesFiles(t *testing.T) {
	needCRIU(t)
	e := newEngine(t, "checkpoint-files")
	e.detach(counting)
	n := e.counts(3)
	dir := t.TempDir()
	images, work := filepath.Join(dir, "images"), filepath.Join(dir, "work")
	e.do("tasks", "checkpoint", "--image-path", images, "--work-path", work, e.id)
	for _, file := range []string{filepath.Join(images, "inventory.img"), filepath.Join(work, "dump.log")} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	e.counts(n)
}

// Containers with a terminal are not among them: the shim of containerd 1.6 gives restore no console socket.
func TestRestoredContainerGoesOnUnderAnotherName(t *testing.T) {
	needCRIU(t)
	e := newEngine(t, "before")
	e.detach(counting)
	n := e.counts(3)
	const reference = "localhost/checkpoint:1"
	e.do("containers", "checkpoint", "--task", "--image", "--rw", e.id, reference)
	e.counts(n) // it was paused only
	e.remove(e.id)
	for _, id := range []string{"after", "after-again"} {
		restored := e.with(id)
		e.do("containers", "restore", "--live", "--rw", id, reference)
		if got := e.status(id); got != "RUNNING" {
			t.Fatalf("the restored task is %q", got)
		}
		restored.counts(n)
		e.do("tasks", "pause", id)
		e.do("tasks", "resume", id)
		// The spec is the first container's, and with it the cgroup's path.
		if text := e.group("pids", "pids.current"); text == "0" || text == "" {
			t.Errorf("%s: pids.current is %q", id, text)
		}
		e.do("tasks", "kill", "--signal", "SIGKILL", id)
		e.eventually("the restored task ends", func() bool { return e.status(id) == "STOPPED" })
		if out, _ := e.try("tasks", "rm", id); !strings.Contains(out, "137") {
			t.Errorf("exit status of a killed task: %s", out)
		}
	}
}
