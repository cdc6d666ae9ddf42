package feed_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/sys/uffd"
	"github.com/livemigrate/migrate/internal/testutil"
)

// TestFeederMayDieInTheHandshake plays CRIU, with memory of this process, and kills feeders between the parts of what CRIU
// sends: no part may get lost, none may count twice.
func TestFeederMayDieInTheHandshake(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			p := newPlayed(t, 3, 96)
			s := p.supervise(t)
			feeders := 0
			maybeKill := func() {
				if random.IntN(2) > 0 {
					return
				}
				for atWork := random.IntN(8) > 0; atWork && s.Progress().Feeders <= feeders; {
					time.Sleep(time.Millisecond)
				}
				feeders = s.Progress().Feeders
				time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
				_ = syscall.Kill(s.Pid(), syscall.SIGKILL)
			}
			conn := p.connect(t)
			for i, area := range p.areas {
				maybeKill()
				p.send(t, conn, int32(i+1))
				maybeKill()
				sendUffd(t, conn, area.fd)
				if i == 1 {
					maybeKill()
					p.send(t, conn, -77) // a zombie
				}
			}
			for i := range p.areas { // registered after the descriptors are sent, as CRIU does it
				if err := p.areas[i].fd.Register(p.areas[i].start, uint64(len(p.areas[i].memory)), uffd.RegisterMissing); err != nil {
					t.Fatal(err)
				}
			}
			p.letGo() // as a task does before it runs
			maybeKill()
			p.touch(t, random.IntN(3)) // page 0 has the slot that others need too
			maybeKill()
			p.send(t, conn, 0x52535446)
			maybeKill()
			if random.IntN(2) > 0 {
				p.compare(t)
			}
			fed(t, s)
			p.compare(t)
			t.Logf("%+v", s.Progress())
		})
	}
}

// TestPageThatIsThereAlreadyIsRefused: the process would run on it, and whoever brings the right one is told that there is one.
func TestPageThatIsThereAlreadyIsRefused(t *testing.T) {
	write := func(page []byte) { page[0] = 1 }
	read := func(page []byte) {
		if page[0] != 0 {
			panic("fresh memory is not zero")
		}
	}
	for name, c := range map[string]struct {
		page   int
		touch  func(page []byte)
		killed bool
		cause  string // "" for by right
	}{
		"written":                  {9, write, false, "has put it there"},
		"read":                     {11, read, false, "has read there"},
		"by a successor":           {12, write, true, "has put it there"},
		"of no run":                {3, read, false, ""},
		"waited for, by a feeder":  {0, nil, false, ""},
		"waited for, by successor": {0, nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlayed(t, 2, 32)
			s := p.supervise(t)
			conn := p.connect(t)
			page := p.areas[1].memory[c.page*memory.PageSize:][:memory.PageSize]
			if c.touch != nil {
				c.touch(page)
			}
			p.handOver(t, conn)
			p.letGo()
			if c.touch == nil {
				p.touch(t, 1)
			}
			if c.killed {
				_ = syscall.Kill(s.Pid(), syscall.SIGKILL)
			}
			p.send(t, conn, 0x52535446)
			if c.cause == "" {
				fed(t, s)
				p.compare(t)
				return
			}
			<-s.Done()
			want := fmt.Sprintf("process 2, at %#x: whoever restored it %s (1 pages in all)", uintptr(unsafe.Pointer(&page[0])), c.cause)
			if err := s.Err(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
			if err := s.AwaitTasks(t.Context()); err == nil {
				t.Error("tasks may run")
			}
		})
	}
}

// TestTaskThatIsNotHandedOverIsMissed: without a userfaultfd it would run on zeros.
func TestTaskThatIsNotHandedOverIsMissed(t *testing.T) {
	p := newPlayed(t, 2, 4)
	s := p.supervise(t)
	conn := p.connect(t)
	p.send(t, conn, 1)
	sendUffd(t, conn, p.areas[0].fd)
	p.send(t, conn, 0x52535446)
	<-s.Done()
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "was not handed over: 2") {
		t.Errorf("%v", err)
	}
}

// TestTaskThatTheLayoutDoesNotKnowIsRefused: feeding it zeros would be wrong bytes.
func TestTaskThatTheLayoutDoesNotKnowIsRefused(t *testing.T) {
	p := newPlayed(t, 1, 4)
	s := p.supervise(t)
	conn := p.connect(t)
	p.send(t, conn, 999)
	sendUffd(t, conn, p.areas[0].fd)
	<-s.Done()
	if err := s.Err(); err == nil || !bytes.Contains([]byte(err.Error()), []byte("not in the memory layout")) {
		t.Errorf("%v", err)
	}
}

// TestRestoreThatEndsEarlyEndsTheFeeder: CRIU hangs up without tasks.
func TestRestoreThatEndsEarlyEndsTheFeeder(t *testing.T) {
	p := newPlayed(t, 1, 4)
	s := p.supervise(t)
	p.connect(t).Close()
	<-s.Done()
	if s.Err() == nil {
		t.Error("no error")
	}
}

// played is what CRIU would have made: address spaces, all of them in this process.
type played struct {
	dir    string
	store  *os.File
	layout *feed.Layout
	areas  []playedArea
}

type playedArea struct {
	fd     uffd.FD
	memory []byte // not to be touched: Go would wait for the fault with everything
	start  uint64
	want   []byte
}

func newPlayed(t *testing.T, spaces, pages int) *played {
	t.Helper()
	testutil.Root(t)
	p := &played{dir: t.TempDir(), layout: &feed.Layout{}}
	var err error
	if p.store, err = hole.Memory("store"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.store.Close() })
	percent := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	slot := uint64(1)
	for i := range spaces {
		fd, err := uffd.Open(syscall.O_CLOEXEC | syscall.O_NONBLOCK)
		testutil.Need(t, err == nil, "userfaultfd")
		if _, err := fd.API(uffd.FeatureRemap | uffd.FeatureRemove | uffd.FeatureUnmap); err != nil {
			t.Fatal(err)
		}
		area, err := syscall.Mmap(-1, 0, pages*memory.PageSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Munmap(area) })
		a := playedArea{fd: fd, memory: area, start: uint64(uintptr(unsafe.Pointer(&area[0])))}
		space := feed.Space{Pid: i + 1}
		for n := range pages {
			page := bytes.Repeat(fmt.Appendf(nil, "%08d%08d", i, n), memory.PageSize/16)
			at := a.start + uint64(n)*memory.PageSize
			switch {
			case n%7 == 3: // in no run
				page = make([]byte, memory.PageSize)
			case n%7 == 5 && slot > 1: // the content of another page
				page = make([]byte, memory.PageSize)
				if _, err := p.store.ReadAt(page, memory.PageSize); err != nil {
					t.Fatal(err)
				}
				space.Runs = appendPage(space.Runs, at, 1)
			default:
				if _, err := p.store.WriteAt(page, int64(slot*memory.PageSize)); err != nil {
					t.Fatal(err)
				}
				space.Runs = appendPage(space.Runs, at, slot)
				slot++
			}
			a.want = append(a.want, page...)
		}
		p.layout.Spaces = append(p.layout.Spaces, space)
		p.areas = append(p.areas, a)
	}
	return p
}

func (p *played) supervise(t *testing.T) *feed.Supervisor {
	t.Helper()
	s, err := feed.Start(t.Context(), &feed.Options{
		Dir: p.dir, Store: []feed.Part{{File: p.store}}, Punch: true,
		Log: slog.New(slog.NewTextHandler(&testLog{t: t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.letGo()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	text, err := p.layout.Encode()
	if err != nil {
		t.Fatal(err)
	}
	f, err := hole.Memory("layout")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(f); err != nil {
		t.Fatal(err)
	}
	return s
}

func (p *played) connect(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(p.dir, feed.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

// handOver does all of CRIU's part but its last word.
func (p *played) handOver(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	for i, area := range p.areas {
		p.send(t, conn, int32(i+1))
		sendUffd(t, conn, area.fd)
		if err := area.fd.Register(area.start, uint64(len(area.memory)), uffd.RegisterMissing); err != nil {
			t.Fatal(err)
		}
	}
}

// touch has the kernel read the first page of some areas.
func (p *played) touch(t *testing.T, areas int) {
	t.Helper()
	file, err := hole.Memory("read")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, a := range p.areas[len(p.areas)-areas:] {
		if _, err := file.WriteAt(a.memory[:memory.PageSize], 0); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *played) send(t *testing.T, w io.Writer, pid int32) {
	t.Helper()
	if err := binary.Write(w, binary.LittleEndian, pid); err != nil {
		t.Fatal(err)
	}
}

// letGo closes our copies of the descriptors.
func (p *played) letGo() {
	for i := range p.areas {
		if p.areas[i].fd >= 0 {
			_ = p.areas[i].fd.Close()
		}
		p.areas[i].fd = -1
	}
}

// compare has the kernel read the areas: a goroutine that waits in a system call does not hold up the others.
func (p *played) compare(t *testing.T) {
	t.Helper()
	file, err := hole.Memory("read")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for i, a := range p.areas {
		got := make([]byte, len(a.want))
		if _, err := file.WriteAt(a.memory, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(got); n += memory.PageSize {
			if !bytes.Equal(got[n:n+memory.PageSize], a.want[n:n+memory.PageSize]) {
				t.Errorf("space %d, page %d: %q, want %q", i, n/memory.PageSize, got[n:n+16], a.want[n:n+16])
			}
		}
	}
}

// sendUffd keeps no copy but fd: munmap would wait for a reader.
func sendUffd(t *testing.T, conn *net.UnixConn, fd uffd.FD) {
	t.Helper()
	n, err := syscall.Dup(int(fd))
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(n), "uffd")
	defer file.Close()
	if err := descriptor.Send(conn, file, "\x00"); err != nil {
		t.Fatal(err)
	}
}
