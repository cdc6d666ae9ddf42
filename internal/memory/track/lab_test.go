package track_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/track"
	"github.com/livemigrate/migrate/internal/testutil"
)

// cgroup is a cgroup with a freezer, of v1 or v2, that a test's programs live in.
type cgroup struct {
	dir string
	v2  bool
}

func newCgroup(t *testing.T) *cgroup {
	t.Helper()
	testutil.Root(t)
	c := &cgroup{v2: testutil.Cgroup2Alone()}
	root := "/sys/fs/cgroup/freezer"
	if c.v2 {
		root = "/sys/fs/cgroup"
	}
	var err error
	c.dir, err = os.MkdirTemp(root, "track-test-")
	testutil.Need(t, err == nil, "a cgroup freezer")
	t.Cleanup(func() {
		_ = c.thaw()
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			pids, _ := c.pids()
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			if syscall.Rmdir(c.dir) == nil {
				return
			}
		}
		t.Errorf("cgroup %s is left", c.dir)
	})
	return c
}

func (c *cgroup) pids() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// freeze freezes the cgroup. A thread that calls exec waits for the others of its process, and they, frozen by v1, do not
// end: such an attempt is given up and made again.
func (c *cgroup) freeze(context.Context) (thaw func() error, err error) {
	file, freeze, state, frozen := "freezer.state", "FROZEN", "freezer.state", "FROZEN"
	if c.v2 {
		file, freeze, state, frozen = "cgroup.freeze", "1", "cgroup.events", "frozen 1"
	}
	for range 50 {
		for range 100 {
			if err := os.WriteFile(filepath.Join(c.dir, file), []byte(freeze), 0); err != nil {
				return nil, err
			}
			text, err := os.ReadFile(filepath.Join(c.dir, state))
			if err != nil {
				return nil, err
			}
			if bytes.Contains(text, []byte(frozen)) {
				return c.thaw, nil
			}
			time.Sleep(time.Millisecond)
		}
		if err := c.thaw(); err != nil {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("the cgroup does not freeze")
}

func (c *cgroup) thaw() error {
	if c.v2 {
		return os.WriteFile(filepath.Join(c.dir, "cgroup.freeze"), []byte("0"), 0)
	}
	return os.WriteFile(filepath.Join(c.dir, "freezer.state"), []byte("THAWED"), 0)
}

// hog starts a hog in the cgroup and waits until it is at work.
func (c *cgroup) hog(t *testing.T, tasks string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A shell enters the cgroup, so that nothing of the hog was ever outside.
	cmd := exec.Command("/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$1"`, c.dir, self)
	cmd.Env = append(os.Environ(), hogVariable+"="+tasks)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // its end is the hog's
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.thaw()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("hog said %q, %v", line, err)
	}
	return cmd
}

// replica is the copy of a set's memory that somebody has who reads what he is told to.
type replica struct {
	spaces map[uint64]map[uint64][]byte // by space and address: pages
	vpids  map[uint64]track.Change
}

func newReplica() *replica {
	return &replica{spaces: map[uint64]map[uint64][]byte{}, vpids: map[uint64]track.Change{}}
}

// apply reads what is dirty, and returns how many pages that was.
func (r *replica) apply(t *testing.T, changes []track.Change) (dirty int) {
	t.Helper()
	living := map[uint64]map[uint64][]byte{}
	for _, c := range changes {
		pages := r.spaces[c.Space]
		if c.New != (pages == nil) {
			t.Errorf("space %d of process %d: new is %v", c.Space, c.Pid, c.New)
		}
		ascending(t, "populated", c.Populated)
		ascending(t, "dirty", c.Dirty)
		inside(t, c.Dirty, c.Populated)
		inside(t, c.Untracked, c.Dirty)
		kept := make(map[uint64][]byte, len(pages))
		for _, each := range c.Populated {
			for at := each.Start; at < each.End(); at += page {
				if old := pages[at]; old != nil {
					kept[at] = old
				}
			}
		}
		memory := openMemory(c.Pid)
		for _, each := range c.Dirty {
			dirty += int(each.Pages)
			readPages(memory, each, kept)
		}
		memory.Close()
		living[c.Space], r.vpids[c.Space] = kept, c
	}
	r.spaces = living
	return dirty
}

// verify compares the replica with the memory of all processes of the cgroup, which do not run.
func (r *replica) verify(t *testing.T, pids []int) {
	t.Helper()
	known, mapped := map[int]uint64{}, map[string]bool{}
	for space := range r.spaces {
		pid := r.vpids[space].Pid
		known[pid] = space
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		mapped[string(text)] = true
	}
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil || len(text) == 0 {
			continue // a zombie
		}
		space, ok := known[pid]
		if !ok && mapped[string(text)] {
			continue // amid vfork
		}
		if !ok {
			t.Errorf("process %d is in no change", pid)
			continue
		}
		pages, wrong, all := r.spaces[space], 0, 0
		memory := openMemory(pid)
		current := map[uint64][]byte{}
		there := populatedPages(t, pid, string(text))
		for _, run := range runs(there) {
			readPages(memory, run, current)
		}
		for _, at := range there {
			all++
			now, then := current[at], pages[at]
			if now == nil {
				continue // a guard page
			}
			if then == nil {
				then = make([]byte, page)
			}
			if !bytes.Equal(now, then) {
				if wrong++; wrong < 4 {
					t.Errorf("process %d: page %#x differs; known: %v\n%s", pid, at, pages[at] != nil, mapping(string(text), at))
				}
			}
		}
		memory.Close()
		if wrong > 0 {
			t.Errorf("process %d: %d of %d pages differ", pid, wrong, all)
		}
	}
}

// populatedPages asks the plain page map, not the scan.
func populatedPages(t *testing.T, pid int, maps string) (pages []uint64) {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for line := range strings.Lines(maps) {
		var start, end, offset, inode uint64
		var perm, dev, name string
		_, _ = fmt.Sscanf(line, "%x-%x %s %x %s %d %s", &start, &end, &perm, &offset, &dev, &inode, &name)
		if perm[3] != 'p' || inode != 0 || strings.HasPrefix(name, "[v") {
			continue
		}
		if testutil.Race && end-start > 1<<34 {
			continue // the race detector's own: terabytes, all but empty
		}
		const chunk = 1 << 20
		for ; start < end; start += chunk * page {
			entries := make([]byte, 8*min(chunk, (end-start)/page))
			if _, err := file.ReadAt(entries, int64(start/page*8)); err != nil {
				t.Fatal(err)
			}
			for i := range len(entries) / 8 {
				if binary.NativeEndian.Uint64(entries[8*i:])>>62 != 0 {
					pages = append(pages, start+uint64(i)*page)
				}
			}
		}
	}
	return pages
}

// openMemory opens /proc/PID/mem, which unreadable memory does not stop; nil when there is none.
func openMemory(pid int) *os.File {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil
	}
	return file
}

// readPages reads pages into a map by their addresses, and leaves those out that are not there.
func readPages(memory *os.File, r memory.Range, into map[uint64][]byte) {
	if memory == nil {
		return
	}
	var buf []byte // parts of which stay in the map
	for start := r.Start; start < r.End(); {
		if len(buf) == 0 {
			buf = make([]byte, min(r.End()-start, 1<<20))
		}
		n, err := memory.ReadAt(buf[:min(r.End()-start, uint64(len(buf)))], int64(start))
		n -= n % page
		for at := 0; at < n; at += page {
			into[start+uint64(at)] = buf[at:][:page:page]
		}
		buf = buf[n:]
		if errors.Is(err, io.EOF) {
			return // the process has ended
		}
		if start += uint64(n); err != nil {
			start += page
		}
	}
}

// runs of pages that touch each other, out of their addresses in ascending order.
func runs(pages []uint64) (runs []memory.Range) {
	for _, at := range pages {
		if n := len(runs); n > 0 && runs[n-1].End() == at {
			runs[n-1].Pages++
		} else {
			runs = append(runs, memory.Range{Start: at, Pages: 1})
		}
	}
	return runs
}

func ascending(t *testing.T, what string, ranges []memory.Range) {
	t.Helper()
	var end uint64
	for _, r := range ranges {
		if r.Start < end || r.Pages == 0 || r.Start%page != 0 {
			t.Fatalf("%s: %#x, %d pages, behind %#x", what, r.Start, r.Pages, end)
		}
		end = r.End()
	}
}

func inside(t *testing.T, part, whole []memory.Range) {
	t.Helper()
	for _, p := range part {
		for len(whole) > 0 && whole[0].End() <= p.Start {
			whole = whole[1:]
		}
		if len(whole) == 0 || p.Start < whole[0].Start || p.End() > whole[0].End() {
			t.Fatalf("%#x, %d pages, is not in the whole", p.Start, p.Pages)
		}
	}
}

func mapping(maps string, at uint64) string {
	for line := range strings.Lines(maps) {
		var start, end uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err == nil && start <= at && at < end {
			return line
		}
	}
	return "not mapped"
}

// userfaultfds of a process.
func userfaultfds(pid int) (n int) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil && strings.Contains(name, "userfaultfd") {
			n++
		}
	}
	return n
}

// running fails the test when the program has ended.
func running(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var info [128]byte
	const pPid, exited, noHang, noWait = 1, 4, 1, 0x01000000
	err := waitid(pPid, cmd.Process.Pid, &info, exited|noHang|noWait)
	if err != nil && !errors.Is(err, syscall.ECHILD) {
		t.Fatal(err)
	}
	if pid := binary.NativeEndian.Uint32(info[12:]); pid != 0 {
		t.Fatalf("the hog ended: %v", cmd.Wait())
	}
}

// trace seizes a process until done is closed.
func trace(pid int, traced chan<- error, done <-chan struct{}) {
	runtime.LockOSThread() // the end of this thread detaches
	const seize = 0x4206
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, seize, uintptr(pid), 0, 0, 0, 0)
	if errno != 0 {
		traced <- errno
		return
	}
	traced <- nil
	<-done
}
