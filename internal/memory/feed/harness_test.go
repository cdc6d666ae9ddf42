package feed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "feed" {
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		if err := feed.Serve(context.Background(), log); err != nil {
			log.Error(err.Error())
			if feed.Hopeless(err) {
				os.Exit(feed.ExitHopeless)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 6 && (os.Args[1] == "supervise" || os.Args[1] == "adopt") {
		pages, _ := strconv.ParseUint(os.Args[5], 10, 64)
		err := outside(os.Args[1], os.Args[2], os.Args[3], os.Args[4] == "true", pages)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The children of a killed tree become ours, so that their pids are free once they are waited for.
	if err := process.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// networkLockSkip is CRIU's SKIP.
const networkLockSkip = criu.NetworkLock(3)

// hog is the program of testdata/hog.c.
type hog struct {
	pid   int
	out   string
	lines int // read so far
}

func startHog(t *testing.T, megabytes, children int) *hog {
	t.Helper()
	testutil.Root(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "hog")
	build := exec.Command(testutil.Command(t, "gcc"), "-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Werror", "-o", program, "testdata/hog.c")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build hog: %v\n%s", err, text)
	}
	h := &hog{out: filepath.Join(dir, "out")}
	cmd := exec.Command(program, strconv.Itoa(megabytes), strconv.Itoa(children), h.out)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.pid = cmd.Process.Pid
	t.Cleanup(func() { _ = syscall.Kill(-h.pid, syscall.SIGKILL) })
	for range children + 1 {
		h.next(t)
	}
	return h
}

// next is the next line that the hog wrote.
func (h *hog) next(t *testing.T) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(h.out)
		lines := strings.SplitAfter(string(text), "\n")
		if len(lines) > h.lines+1 {
			h.lines++
			return strings.TrimSpace(lines[h.lines-1])
		}
	}
	var status syscall.WaitStatus
	if pid, _ := syscall.Wait4(h.pid, &status, syscall.WNOHANG, nil); pid == h.pid {
		t.Fatalf("the hog has ended: exit status %d, signal %v", status.ExitStatus(), status.Signal())
	}
	t.Fatal("the hog says nothing")
	return ""
}

// order has the hog do something and wants so many lines, none of which tells of wrong memory.
func (h *hog) order(t *testing.T, signal syscall.Signal, lines int) {
	t.Helper()
	if err := syscall.Kill(h.pid, signal); err != nil {
		t.Fatal(err)
	}
	for range lines {
		if line := h.next(t); strings.HasPrefix(line, "WRONG") {
			t.Error(line)
		}
	}
}

// checkpoint is a dumped tree: CRIU's images, and the memory in a store of ours.
type checkpoint struct {
	dir    string
	pids   []int
	store  *os.File
	layout *feed.Layout
	pages  uint64
}

func startCRIU(t *testing.T, files ...*os.File) *criu.Client {
	t.Helper()
	path, err := criu.Locate("")
	testutil.Need(t, err == nil, "criu")
	c, err := criu.Start(t.Context(), &criu.StartOptions{Path: path, Files: files, SmallPages: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.FeatureCheck(t.Context()); err != nil { // without its notes it would give up going without huge pages
		t.Fatal(err)
	}
	return c
}

// dump takes the tree's memory while CRIU has it stopped. CRIU kills it then.
func (h *hog) dump(t *testing.T) *checkpoint {
	t.Helper()
	c := &checkpoint{dir: t.TempDir(), layout: &feed.Layout{}}
	var err error
	if c.store, err = hole.Memory("store"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.store.Close() })
	// CRIU starts its page server after every lazy dump, and waits for a client for ever. A socket whose other end is closed
	// ends that wait at once.
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Close(pair[1])
	dead := os.NewFile(uintptr(pair[0]), "dead")
	defer dead.Close()
	config := filepath.Join(c.dir, "criu.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, "ps-socket %d\n", criu.FirstFile), 0o600); err != nil {
		t.Fatal(err)
	}
	call, err := startCRIU(t, dead).Dump(t.Context(), &criu.Request{ImagesDir: c.dir, LogFile: "dump.log", Options: &criu.Options{
		Pid: proto.Int32(int32(h.pid)), LazyPages: proto.Bool(true), ConfigFile: proto.String(config),
		NetworkLock: networkLockSkip.Enum(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for {
		n, err := call.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n.Script == "post-dump" {
			c.take(t)
		}
		if err := call.Accept(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.reap()
	return c
}

// reap waits for the whole tree, so that its pids are free.
func (c *checkpoint) reap() {
	for range c.pids { // children become ours when their parent is reaped
		for _, pid := range c.pids {
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}
}

// take copies the pages that CRIU leaves to us; those with the same content get one slot.
func (c *checkpoint) take(t *testing.T) {
	t.Helper()
	maps, err := filepath.Glob(filepath.Join(c.dir, "pagemap-*.img"))
	if err != nil {
		t.Fatal(err)
	}
	slots := map[xxh3.Uint128]uint64{}
	next := uint64(1)
	var zero [memory.PageSize]byte
	buf := make([]byte, memory.PageSize)
	for _, path := range maps {
		pid, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "pagemap-"), ".img"))
		if err != nil {
			continue // of shared memory
		}
		c.pids = append(c.pids, pid)
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			t.Fatal(err)
		}
		space := feed.Space{Pid: pid}
		for _, r := range ranges(t, path, lazy) {
			for at := r.Start; at < r.End(); at += memory.PageSize {
				if _, err := mem.ReadAt(buf, int64(at)); err != nil {
					t.Fatal(err)
				}
				slot := uint64(0)
				if !bytes.Equal(buf, zero[:]) {
					sum := xxh3.Hash128(buf)
					slot = slots[sum]
					if slot == 0 {
						slot, slots[sum] = next, next
						next++
						if _, err := c.store.WriteAt(buf, int64(slot*memory.PageSize)); err != nil {
							t.Fatal(err)
						}
					}
				}
				space.Runs = appendPage(space.Runs, at, slot)
			}
		}
		mem.Close()
		c.layout.Spaces = append(c.layout.Spaces, space)
	}
	sort.Slice(c.layout.Spaces, func(i, j int) bool { return c.layout.Spaces[i].Pid < c.layout.Spaces[j].Pid })
	sort.Ints(c.pids)
	c.pages = next - 1
}

func appendPage(runs []feed.Run, at, slot uint64) []feed.Run {
	if n := len(runs) - 1; n >= 0 && runs[n].End() == at &&
		(slot == 0 && runs[n].Slot == 0 || slot != 0 && runs[n].Slot != 0 && runs[n].Slot+runs[n].Pages == slot) {
		runs[n].Pages++
		return runs
	}
	return append(runs, feed.Run{Range: memory.Range{Start: at, Pages: 1}, Slot: slot})
}

// Flags of entries of CRIU's page maps (images/pagemap.proto): that CRIU leaves to us, and that it restores.
const (
	lazy    = 2 // PE_LAZY
	present = 4 // PE_PRESENT
)

// ranges are the entries of a page map of CRIU's that are flagged so.
func ranges(t *testing.T, path string, flag uint64) []memory.Range {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []memory.Range
	for i, first := 8, true; i+4 <= len(b); first = false {
		size := int(binary.LittleEndian.Uint32(b[i:]))
		record := b[i+4 : i+4+size]
		i += 4 + size
		fields := map[protowire.Number]uint64{}
		for len(record) > 0 {
			number, kind, n := protowire.ConsumeTag(record)
			if n < 0 || kind != protowire.VarintType {
				t.Fatalf("%s is no page map", path)
			}
			value, m := protowire.ConsumeVarint(record[n:])
			fields[number] = value
			record = record[n+m:]
		}
		if !first && fields[4]&(lazy|present) == flag {
			list = append(list, memory.Range{Start: fields[1], Pages: max(fields[2], fields[5])})
		}
	}
	return list
}

// supervise starts a feeder for the checkpoint.
func (c *checkpoint) supervise(t *testing.T, punch bool) *feed.Supervisor {
	t.Helper()
	s := c.start(t, c.store, &feed.Options{Punch: punch})
	c.load(t, s)
	return s
}

// superviseLate starts one whose store gets all its pages later, in no order, but for those that are asked for.
func (c *checkpoint) superviseLate(t *testing.T) *feed.Supervisor {
	t.Helper()
	store, err := hole.Memory("late store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	s := c.start(t, store, &feed.Options{Punch: true, Late: true})
	if err := s.Owe(feed.Owed{Slot: 1, Pages: c.pages}); err != nil {
		t.Fatal(err)
	}
	c.load(t, s)
	var arriving sync.WaitGroup
	bring := func(slot uint64) {
		buf := make([]byte, memory.PageSize)
		if s.Held((slot-1)&^7+1, 1)[0]>>((slot-1)%8)&1 != 0 {
			return
		}
		_, err := c.store.ReadAt(buf, int64(slot*memory.PageSize))
		if err == nil {
			_, err = store.WriteAt(buf, int64(slot*memory.PageSize))
		}
		if err != nil {
			t.Errorf("bring a page: %v", err)
		}
		s.Arrived(slot, 1)
		s.Wake()
	}
	wanted := make(chan uint64, 1<<16)
	go func() { // ends with Close
		for {
			slot, err := s.Wanted()
			if err != nil {
				return
			}
			wanted <- slot
		}
	}()
	arriving.Go(func() {
		for _, i := range rand.Perm(int(c.pages)) {
			for len(wanted) > 0 {
				bring(<-wanted)
			}
			bring(uint64(i) + 1)
			if i%16 == 0 {
				time.Sleep(time.Millisecond)
			}
			if t.Context().Err() != nil {
				return
			}
		}
		if n := s.Missing(); n != 0 {
			t.Errorf("%d pages are missing", n)
		}
	})
	t.Cleanup(arriving.Wait) // before Close
	return s
}

func (c *checkpoint) start(t *testing.T, store *os.File, o *feed.Options) *feed.Supervisor {
	t.Helper()
	o.Dir, o.Store, o.Log = c.dir, []feed.Part{{File: store}}, slog.New(slog.NewTextHandler(&testLog{t: t}, nil))
	s, err := feed.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range c.pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		c.reap()
	})
	return s
}

func (c *checkpoint) load(t *testing.T, s *feed.Supervisor) {
	t.Helper()
	f, err := os.Open(c.writeLayout(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Load(f); err != nil {
		t.Fatal(err)
	}
}

func (c *checkpoint) writeLayout(t *testing.T) string {
	t.Helper()
	text, err := c.layout.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.dir, feed.LayoutName)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type testLog struct{ t *testing.T }

func (l *testLog) Write(p []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// restore makes the tree again; its memory is the feeder's affair.
func (c *checkpoint) restore(t *testing.T) {
	t.Helper()
	call, err := startCRIU(t).Restore(t.Context(), &criu.Request{ImagesDir: c.dir, LogFile: "restore.log", Options: &criu.Options{
		LazyPages: proto.Bool(true), RstSibling: proto.Bool(true), NetworkLock: networkLockSkip.Enum(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := call.Next(t.Context()); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if err := call.Accept(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// fed waits until the feeder is through.
func fed(t *testing.T, s *feed.Supervisor) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(2 * time.Minute):
		t.Fatalf("not fed in two minutes: %+v", s.Progress())
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if p := s.Progress(); p.Fed != p.Total {
		t.Errorf("%d bytes of %d", p.Fed, p.Total)
	}
}
