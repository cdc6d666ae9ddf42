package podman

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/engines/image"
)

func (e *engine) needsCRIU() {
	e.Helper()
	_, err := criu.Locate("")
	testutil.Need(e, err == nil, "criu")
}

// lastTick is the last number that a ticking container has said.
func (c *container) lastTick() int {
	c.Helper()
	last := -1
	for line := range strings.Lines(c.logs()) {
		if n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "tick "))); err == nil {
			last = n
		}
	}
	return last
}

// goesOn waits for a ticking container to count further, from where it was and not from the beginning.
func (c *container) goesOn() {
	c.Helper()
	before := c.lastTick()
	c.eventually(c.name+" counts on", func() bool { return c.lastTick() > before })
	c.neverBeganAnew()
}

func (c *container) neverBeganAnew() {
	c.Helper()
	previous := -1
	for line := range strings.Lines(c.logs()) {
		n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "tick ")))
		if err != nil {
			continue
		}
		if n <= previous || previous != -1 && n != previous+1 {
			c.Errorf("tick %d after %d", n, previous)
		}
		previous = n
	}
}

func TestRestoredContainerGoesOn(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking)
	c.saying("tick 2")
	e.do("container", "checkpoint", c.name)
	e.same("state", c.is(".State.Status"), "exited")
	e.same("checkpointed", c.is(".State.Checkpointed"), "true")
	e.do("container", "restore", c.name)
	c.goesOn()
	e.same("exec", c.exec("echo", "well"), "well")
	e.do("stop", "--time", "10", c.name)
	e.same("exit code", c.is(".State.ExitCode"), "7") // its trap came back too
	e.do("start", c.name)
	c.saying("tick 0")
}

func TestCheckpointIsMovedToAnotherStore(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", "echo made >/made; rm /etc/group; "+ticking, "--env", "A=b", "--hostname", "inside", "--memory", "64m", "--label", "kept=yes")
	c.saying("tick 2")
	archive := filepath.Join(t.TempDir(), "c.tar.gz")
	e.do("container", "checkpoint", "--export", archive, c.name)
	before := c.lastTick()
	e.do("rm", c.name)

	e.do("container", "restore", "--import", archive)
	e.eventually("it counts", func() bool { return c.lastTick() > before })
	c.neverBeganAnew()
	e.same("a file it made", c.exec("cat", "/made"), "made")
	if got := e.try("exec", c.name, "test", "-e", "/etc/group"); got.code == 0 {
		t.Error("a file that it had removed is there again")
	}
	e.same("its host name", c.exec("hostname"), "inside")
	e.same("its label", c.is(`index .Config.Labels "kept"`), "yes")
	if exists(filepath.Join(hierarchies, "memory", "tasks")) {
		e.same("its limit", c.limit("memory", "memory.limit_in_bytes"), "67108864")
	}
}

func TestCopiesOfOneCheckpointRunSideBySide(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking)
	c.saying("tick 2")
	archive := filepath.Join(t.TempDir(), "c.tar")
	e.do("container", "checkpoint", "--leave-running", "--compress", "none", "--export", archive, c.name)
	c.goesOn()
	for _, name := range []string{"copy-a", "copy-b"} {
		copied := e.named(name)
		e.do("container", "restore", "--import", archive, "--name", copied.name)
		// podman packs the log, which comes along, when the original runs on already: a line or two stand there twice.
		first := copied.lastTick()
		e.eventually("it counts", func() bool { return copied.lastTick() > first })
		if n := strings.Count(copied.logs(), "tick 0\n"); n != 1 {
			t.Errorf("%s began %d times", name, n)
		}
		if copied.is(".Id") == c.is(".Id") {
			t.Error("the copy has the original's id")
		}
	}
	c.goesOn()
}

func TestTerminalComesBack(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", dialogue, "--interactive", "--tty")
	e.do("container", "checkpoint", c.name)
	e.do("container", "restore", c.name)
	s := e.onScreen("attach", c.name)
	s.types("again\r")
	s.shows("heard again")
	s.types("end 8\r")
	s.ends(0) // podman 4.3's attach doesn't pass the exit code on
	e.same("wait", e.do("wait", c.name), "8")
}

func TestConnectionSurvivesInTheHostsNetwork(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.redis("c", "--network", "host")
	db := e.dial("127.0.0.1")
	db.counts(1)
	if got := e.try("container", "checkpoint", c.name); got.code == 0 {
		t.Fatal("a checkpoint with an open connection needs to be asked for")
	} else {
		e.holds("its reason", got.stderr, "--tcp-established")
	}
	db.counts(2) // and it runs on
	e.do("container", "checkpoint", "--tcp-established", c.name)
	e.do("container", "restore", "--tcp-established", c.name)
	db.counts(3)
	archive := filepath.Join(t.TempDir(), "c.tar.gz")
	e.do("container", "checkpoint", "--tcp-established", "--export", archive, c.name)
	e.do("rm", c.name)
	e.do("container", "restore", "--tcp-established", "--import", archive)
	db.counts(4)
}

// podman takes the container off the network and puts it there anew; a client that asks meanwhile is refused, with any
// runtime. One that waits is served.
func TestConnectionSurvivesOnTheBridge(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.redis("c", e.onBridge()...)
	address := c.is(".NetworkSettings.IPAddress")
	db := e.dial(address)
	db.counts(1)
	e.do("container", "checkpoint", "--tcp-established", c.name)
	e.do("container", "restore", "--tcp-established", c.name)
	e.same("its address", c.is(".NetworkSettings.IPAddress"), address)
	db.counts(2)
}

func TestVolumesAreThereAfterARestore(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	dir := t.TempDir()
	e.do("volume", "create", e.prefix)
	e.atEnd("volume", "rm", "--force", e.prefix)
	c := e.start("c", "exec >>/data/log; "+ticking, "--volume", dir+":/data", "--volume", e.prefix+":/named", "--tmpfs", "/scratch", "--read-only")
	log := filepath.Join(dir, "log")
	e.eventually("it counts", func() bool { return exists(log) && strings.Contains(read(t, log), "tick 2") })
	c.exec("sh", "-c", "echo a >/named/a; echo b >/scratch/b; echo c >/tmp/c; echo d >/dev/shm/d")
	e.do("container", "checkpoint", c.name)
	e.do("container", "restore", c.name)
	before := len(read(t, log))
	e.eventually("it counts on", func() bool { return len(read(t, log)) > before })
	if n := strings.Count(read(t, log), "tick 0\n"); n != 1 {
		t.Errorf("it began %d times", n)
	}
	e.same("files", c.exec("cat", "/named/a", "/scratch/b", "/tmp/c", "/dev/shm/d"), "a\nb\nc\nd")
}

func TestUserNamespaceIsRestored(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking, "--uidmap", maps, "--gidmap", maps)
	c.saying("tick 2")
	e.do("container", "checkpoint", c.name)
	e.do("container", "restore", c.name)
	c.goesOn()
	e.holds("outside", read(t, "/proc/"+c.is(".State.Pid")+"/status"), "\nUid:\t200000\t")
}

func TestPrivilegedContainerIsRestored(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking, "--privileged")
	c.saying("tick 2")
	e.do("container", "checkpoint", c.name)
	e.do("container", "restore", c.name)
	c.goesOn()
}

func TestKeptImagesAreThereForALook(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking)
	c.saying("tick 1")
	e.do("container", "checkpoint", "--keep", c.name)
	dir := c.is(".State.CheckpointPath")
	for _, path := range []string{filepath.Join(dir, "inventory.img"), c.is(".State.CheckpointLog")} {
		if !exists(path) {
			t.Errorf("missing: %s", path)
		}
	}
	e.do("container", "restore", "--keep", c.name)
	if path := c.is(".State.RestoreLog"); !exists(path) {
		t.Errorf("missing: %s", path)
	}
	c.goesOn()
}

// podman reads CRIU's own statistics from the work directory.
func TestStatisticsAreCRIUs(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking)
	c.saying("tick 1")
	var stats struct {
		Containers []struct {
			Duration int `json:"runtime_checkpoint_duration"`
			CRIU     struct {
				Frozen int `json:"frozen_time"`
				Pages  int `json:"pages_written"`
			} `json:"criu_statistics"`
		} `json:"container_statistics"`
	}
	text := e.do("container", "checkpoint", "--print-stats", c.name)
	if err := json.Unmarshal([]byte(text), &stats); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if len(stats.Containers) != 1 || stats.Containers[0].Duration == 0 || stats.Containers[0].CRIU.Frozen == 0 || stats.Containers[0].CRIU.Pages == 0 {
		t.Errorf("statistics %s", text)
	}
	e.holds("restore's", e.do("container", "restore", "--print-stats", c.name), `"pages_restored": `)
	c.goesOn()
}

func TestCheckpointBuildsOnAPreCheckpoint(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking)
	c.saying("tick 1")
	e.do("container", "checkpoint", "--pre-checkpoint", c.name)
	c.goesOn()
	e.do("container", "checkpoint", "--with-previous", c.name)
	e.do("container", "restore", c.name)
	c.goesOn()
}

func TestDamagedCheckpointIsRefused(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking)
	c.saying("tick 1")
	e.do("container", "checkpoint", c.name)
	pages := filepath.Join(c.is(".State.CheckpointPath"), "pages-1.img")
	if err := os.Truncate(pages, 4096); err != nil {
		t.Fatal(err)
	}
	if got := e.try("container", "restore", c.name); got.code == 0 {
		t.Error("it was restored")
	}
	if state := c.is(".State.Status"); state == "running" {
		t.Errorf("state %s", state)
	}
	e.do("start", c.name) // and it can be started from the beginning
	c.saying("tick 0")
}

func TestCheckpointOfAnImageIsRestored(t *testing.T) {
	e := newEngine(t)
	e.needsCRIU()
	c := e.start("c", ticking)
	c.saying("tick 2")
	name := "localhost/" + e.prefix + ":latest"
	e.atEnd("rmi", "--force", name)
	e.do("container", "checkpoint", "--create-image", name, c.name)
	before := c.lastTick()
	e.do("rm", c.name)
	e.do("container", "restore", "--name", c.name, name)
	e.eventually("it counts", func() bool { return c.lastTick() > before })
}

func TestContainerOfTheImagesOwnCommandRuns(t *testing.T) {
	e := newEngine(t)
	c := e.startImage("c", []string{"--interactive"}, image.Busybox)
	e.same("state", c.is(".State.Status"), "running")
}
