package interchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/runtime"
)

// verifying is a bundle of the workload that knows what each of its pages should hold.
func (h *host) verifying(name string, change func(*specs.Spec), args ...string) string {
	h.t.Helper()
	bundle := h.bundle(name, func(s *specs.Spec) {
		s.Process.Args = append([]string{"workload"}, args...)
		if change != nil {
			change(s)
		}
	})
	for _, dir := range []string{"data", "etc"} {
		if err := os.MkdirAll(filepath.Join(bundle, "rootfs", dir), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(bundle, "rootfs/bin/workload"), "../workload")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, text)
	}
	return bundle
}

// conversation asks a workload whether all is as it should be.
type conversation struct {
	t    *testing.T
	conn net.Conn
	said *bufio.Reader
	n    int
}

// askWorkload connects from within the container's network namespace, once the workload listens.
func askWorkload(t *testing.T, pid int) *conversation {
	t.Helper()
	ns, err := netns.OfProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	c := &conversation{t: t}
	eventually(t, "the workload answers", func() bool {
		err = netns.Do(ns, func() (err error) {
			c.conn, err = net.Dial("tcp", "127.0.0.1:7000")
			return err
		})
		return err == nil
	})
	t.Cleanup(func() { c.conn.Close() })
	c.said = bufio.NewReader(c.conn)
	return c
}

func (c *conversation) check() {
	c.t.Helper()
	c.n++
	if err := c.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(c.conn, "check\n"); err != nil {
		c.t.Fatal(err)
	}
	if said, err := c.said.ReadString('\n'); said != fmt.Sprintf("ok %d\n", c.n) {
		more := make([]byte, c.said.Buffered())
		_, _ = io.ReadFull(c.said, more)
		c.t.Fatalf("the workload says %q, %v", said+string(more), err)
	}
}

// end hangs up, and returns when the workload has too.
func (c *conversation) end() {
	c.t.Helper()
	err := c.conn.(*net.TCPConn).CloseWrite()
	if _, readErr := io.Copy(io.Discard, c.said); err != nil || readErr != nil {
		c.t.Fatal(err, readErr)
	}
}

// initPid is that of a container of the program's.
func (p *program) initPid(id string) int {
	p.t.Helper()
	c, err := p.rt.Load(id)
	if err != nil {
		p.t.Fatal(err)
	}
	return c.InitPid()
}

// feeding lists the processes that feed a container: their command line has the root, and the hidden verbs.
func (p *program) feeding(verb string) []int {
	p.t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	var pids []int
	for _, path := range lines {
		text, _ := os.ReadFile(path)
		if !strings.Contains(string(text), verb+"\x00") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == p.path {
			pids = append(pids, pid)
		}
	}
	return pids
}

// fed waits until nobody feeds any more.
func (p *program) fed() {
	p.t.Helper()
	eventually(p.t, "the end of the feeding", func() bool {
		return len(p.feeding("lazy-pages")) == 0 && len(p.feeding("feed")) == 0
	})
}

// lazyLog is what the feeding process of a restore has said: the log is the restore's.
func (h *host) lazyLog() string {
	text, err := os.ReadFile(filepath.Join(h.dir, "program.log"))
	if err != nil {
		h.t.Error(err)
	}
	return string(text)
}

// saver makes a checkpoint of a running workload in images "1", and of nobody else.
type saver struct {
	name string
	save func(h *host, p *program, bundle string)
}

func savers() []saver {
	return []saver{
		{"of runc", func(h *host, _ *program, bundle string) {
			r := newRunc(h)
			id := h.unique("theirs")
			r.detached(id, "run", "-d", "--bundle", bundle)
			h.busyFor(r.pid(id))
			eventually(h.t, "a checkpoint", func() bool {
				_, err := r.command("checkpoint", "--image-path", h.images("1"), id)
				return err == nil
			})
		}},
		{"of ours", func(h *host, p *program, _ string) {
			p.leave("run", "-d", "saved")
			h.busyFor(p.initPid("saved"))
			p.save("--image-path", h.images("1"), "saved")
		}},
		{"of ours, on top of a parent", func(h *host, p *program, _ string) {
			p.leave("run", "-d", "saved")
			h.busyFor(p.initPid("saved"))
			p.save("--image-path", h.images("1"), "saved")
			h.split(h.images("1"), "parent-of-1")
		}},
	}
}

// leave runs a verb that leaves a container, without a monitor, as engines do, and returns what it logged. The container's
// output is nobody's.
func (p *program) leave(args ...string) string {
	p.t.Helper()
	log := filepath.Join(p.host.dir, "program.log")
	if err := os.RemoveAll(log); err != nil {
		p.t.Fatal(err)
	}
	err := p.command(append([]string{"--log", log}, args...)...).Run()
	text, _ := os.ReadFile(log)
	if err != nil {
		p.t.Fatalf("migrate %s: %v: %s", strings.Join(args, " "), err, text)
	}
	return string(text)
}

func (r *runc) pid(id string) int {
	r.t.Helper()
	for line := range strings.Lines(r.do("state", id)) {
		if digits, ok := strings.CutPrefix(strings.TrimSpace(line), `"pid": `); ok {
			pid, _ := strconv.Atoi(strings.TrimSuffix(digits, ","))
			return pid
		}
	}
	r.t.Fatal("runc's state has no pid")
	return 0
}

// save makes a checkpoint. CRIU meets processes that are just being born or dying, and says so: then it is tried again.
func (p *program) save(args ...string) {
	p.t.Helper()
	for range 5 {
		out, code := p.try(append([]string{"checkpoint"}, args...)...)
		if code == 0 {
			return
		}
		if !strings.Contains(out, "try again") {
			p.t.Fatal(out)
		}
		p.t.Log(out)
	}
	p.t.Fatal("it cannot be saved")
}

// split makes of a set what it would be on top of a pre-dump: every other run of pages lies in a parent.
func (h *host) split(dir, parent string) {
	h.t.Helper()
	h.run("cp", "-r", dir, filepath.Join(h.dir, parent))
	h.run("rm", filepath.Join(dir, "manifest.json"), filepath.Join(h.dir, parent, "manifest.json"))
	if err := os.Symlink(filepath.Join("..", parent), filepath.Join(dir, "parent")); err != nil {
		h.t.Fatal(err)
	}
	maps, err := image.ReadPageMaps(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range maps {
		path := filepath.Join(dir, fmt.Sprintf("pages-%d.img", m.PagesID))
		pages, err := os.ReadFile(path)
		if err != nil {
			h.t.Fatal(err)
		}
		var kept []byte
		for i, run := range m.Runs {
			if run.Flags&image.PagePresent == 0 {
				continue
			}
			content := pages[:run.Bytes()]
			pages = pages[run.Bytes():]
			if i%2 == 0 {
				m.Runs[i].Flags = image.PageParent
			} else {
				kept = append(kept, content...)
			}
		}
		if err := errors.Join(os.WriteFile(path, kept, 0o600), m.Write(dir)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// busyFor lets a workload verify itself, and hangs up: connections are not what is tested.
func (h *host) busyFor(pid int) {
	h.t.Helper()
	c := askWorkload(h.t, pid)
	c.check()
	c.end()
}

// Processes that are restored from files have every byte of their memory, whoever saved them, and while they go on writing,
// forking and mapping before it is all there.
func TestMemoryFromFilesComesAfterTheRestore(t *testing.T) {
	for _, saver := range savers() {
		t.Run(saver.name, func(t *testing.T) {
			h := newHost(t)
			needUserfaultfd(t)
			bundle := h.verifying("b", byID(nil), "kinds", "--megabytes", "1", "--small", "300", "--without", "hugetlb")
			p := h.program(bundle)
			saver.save(h, p, bundle)
			before := digestsOf(t, h.images("1"))
			// Its pipes, if it had any, become the monitor's.
			p.leave("restore", "-d", "--lazy-pages", "--log-file", filepath.Join(h.dir, "output"), "--image-path", h.images("1"), "again")
			c := askWorkload(t, p.initPid("again"))
			c.check()
			p.fed()
			c.check()
			said := h.lazyLog()
			if !strings.Contains(said, "the container has its memory") {
				t.Errorf("the feeding process says %q", said)
			}
			t.Log(said)
			if after := digestsOf(t, h.images("1")); !slices.Equal(before, after) {
				t.Errorf("the images were altered: %q is now %q", before, after)
			}
			if log, err := os.ReadFile(filepath.Join(h.images("1"), "restore.log")); err != nil || !strings.Contains(string(log), "nr_lazy") {
				t.Errorf("CRIU's log is not where it is wanted: %v", err)
			}
			p.do("delete", "-f", "again")
		})
	}
}

// needUserfaultfd skips where the kernel gives root none.
func needUserfaultfd(t *testing.T) {
	t.Helper()
	_, err := os.Stat("/proc/sys/vm/unprivileged_userfaultfd")
	testutil.Need(t, err == nil, "userfaultfd")
}

// digestsOf are the files of an image set, and what is in them.
func digestsOf(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$0" && sha256sum $(ls | grep '\.img$\|\.json$' | grep -v '^stats')`, dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(out), "\n")
}

// Whatever is killed of those that feed: another one takes over.
func TestFeederOfFilesMayDie(t *testing.T) {
	for _, verb := range []string{"feed", "lazy-pages"} {
		t.Run(verb, func(t *testing.T) {
			h := newHost(t)
			needUserfaultfd(t)
			bundle := h.verifying("b", nil, "memory", "--rate", "2000", "192")
			p := h.program(bundle)
			p.leave("run", "-d", "saved")
			h.busyFor(p.initPid("saved"))
			p.do("checkpoint", "saved")
			p.leave("restore", "-d", "--lazy-pages", "saved")
			pids := p.feeding(verb)
			for _, pid := range pids[:min(1, len(pids))] {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			c := askWorkload(t, p.initPid("saved"))
			c.check()
			p.fed()
			c.check()
			said := h.lazyLog()
			if verb == "feed" && !strings.Contains(said, "another one takes over") {
				t.Errorf("no feeder was killed while it fed: %q", said)
			}
			p.do("delete", "-f", "saved")
		})
	}
}

// Both are killed: the container stands still, that is told, nobody saves what it lacks, and resolve gives it the rest. When the
// holder is killed too, what was missing is gone: that is told for ever.
func TestNobodyIsLeftToFeed(t *testing.T) {
	h := newHost(t)
	needUserfaultfd(t)
	bundle := h.verifying("b", nil, "memory", "192")
	p := h.program(bundle)
	p.leave("run", "-d", "saved")
	h.busyFor(p.initPid("saved"))
	p.do("checkpoint", "saved")
	for _, holder := range []bool{false, true} {
		p.leave("restore", "-d", "--lazy-pages", "saved")
		killed := p.feeding("lazy-pages")
		for _, pid := range p.feeding("feed") {
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); holder || !strings.Contains(string(name), process.HolderName) {
				killed = append(killed, pid)
			}
		}
		for _, pid := range killed {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(200 * time.Millisecond)
		said := map[bool]string{false: "\"migrate resolve\" goes on with that", true: "is zeros now"}[holder]
		if strings.Contains(h.lazyLog(), "the container has its memory") {
			t.Log("it had its memory before anybody was killed")
			p.do("delete", "-f", "saved")
			continue
		}
		for _, args := range [][]string{{"state", "saved"}, {"list"}, {"checkpoint", "--image-path", h.images("2"), "saved"}} {
			text, code := p.try(args...)
			if !strings.Contains(strings.ReplaceAll(text, `\"`, `"`), said) || (code == 0) != (args[0] != "checkpoint") {
				t.Errorf("after %d processes were killed %s says, with %d: %s", len(killed), args[0], code, text)
			}
		}
		if !holder {
			if text := p.do("resolve", "saved"); !strings.Contains(text, "has all its memory") {
				t.Errorf("resolve: %s", text)
			}
			askWorkload(t, p.initPid("saved")).check()
			if text := p.do("state", "saved"); strings.Contains(text, "resolve") {
				t.Errorf("state: %s", text)
			}
		}
		p.do("delete", "-f", "saved")
	}
}

// An image that was altered is found when its pages are wanted. The container then is killed: no page that is wrong is ever
// in its memory, and without them it would stand still for ever.
func TestAlteredPagesAreNotFed(t *testing.T) {
	h := newHost(t)
	needUserfaultfd(t)
	bundle := h.verifying("b", nil, "memory", "192")
	p := h.program(bundle)
	p.leave("run", "-d", "saved")
	h.busyFor(p.initPid("saved"))
	p.do("checkpoint", "saved")
	images := filepath.Join(bundle, "checkpoint")
	files, err := filepath.Glob(filepath.Join(images, "pages-*.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if info, err := os.Stat(path); err == nil && info.Size() > 32<<20 {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("spoiled"), info.Size()-2<<20); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	p.leave("restore", "-d", "--lazy-pages", "saved")
	eventually(t, "its death", func() bool { return strings.Contains(p.do("state", "saved"), `"status": "stopped"`) })
	p.fed()
	if said := h.lazyLog(); !strings.Contains(said, "is killed") || !strings.Contains(said, "differ from their digest") {
		t.Errorf("the feeding process says %q", said)
	}
	p.do("delete", "saved")
}

// Who saves or moves a container that is being fed waits, and says for what if it takes long.
func TestCheckpointWaitsForTheMemory(t *testing.T) {
	h := newHost(t)
	needUserfaultfd(t)
	bundle := h.verifying("b", nil, "memory", "192")
	p := h.program(bundle)
	p.leave("run", "-d", "saved")
	h.busyFor(p.initPid("saved"))
	p.do("checkpoint", "saved")
	p.leave("restore", "-d", "--lazy-pages", "--log-file", filepath.Join(h.dir, "log"), "saved")
	stopped := p.feeding("feed")
	for _, pid := range stopped {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	cmd := p.command("checkpoint", "--image-path", h.images("2"), "saved")
	done := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { done <- cmd.Wait() }()
	if len(stopped) > 0 {
		select {
		case err := <-done:
			t.Errorf("a container that lacks memory is saved: %v", err)
			done <- err
		case <-ctx.Done():
		}
	}
	for _, pid := range stopped {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	if err := <-done; err != nil {
		t.Errorf("once it has its memory: %v", err)
	}
	p.leave("restore", "-d", "--image-path", h.images("2"), "saved")
	askWorkload(t, p.initPid("saved")).check()
	p.do("delete", "-f", "saved")
}

// Where userfaultfd is not allowed the restore is a whole one.
func TestLazyRestoreWithoutUserfaultfdIsWhole(t *testing.T) {
	h := newHost(t)
	const sysctl = "/proc/sys/vm/unprivileged_userfaultfd"
	text, err := os.ReadFile(sysctl)
	testutil.Need(t, err == nil && strings.TrimSpace(string(text)) == "0", "a kernel that keeps userfaultfd from users")
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	bundle := h.bundle("b", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
	}, "sh", "-c", counting)
	h.run("chown", "-R", "100000:100000", filepath.Join(bundle, "rootfs"))
	p := h.program(bundle)
	log := filepath.Join(h.dir, "log")
	p.do("run", "-d", "--log-file", log, "saved")
	ticks := func(n int) func() bool {
		return func() bool {
			text, _ := os.ReadFile(log)
			return strings.Contains(string(text), fmt.Sprintf("tick %d\n", n))
		}
	}
	eventually(t, "the log", ticks(3))
	p.do("checkpoint", "saved")
	out := p.leave("restore", "-d", "--lazy-pages", "saved")
	if strings.Count(out, "restored before it runs") != 1 || !strings.Contains(out, "vm.unprivileged_userfaultfd") {
		t.Errorf("the restore says %q", out)
	}
	c, err := p.rt.Load("saved")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(); err != nil || status != runtime.Running {
		t.Errorf("status %v, %v", status, err)
	}
	p.do("delete", "-f", "saved")
}
