package feed_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// TestSupervisorAndFeederMayBothDie: the processes stand still, it is told, and who adopts the feeding gives them the right bytes.
func TestSupervisorAndFeederMayBothDie(t *testing.T) {
	t.Run("whole", func(t *testing.T) { bothDie(t, false) })
	t.Run("late", func(t *testing.T) { bothDie(t, true) })
}

func bothDie(t *testing.T, late bool) {
	h := startHog(t, 64, 1)
	c := h.dump(t)
	state := t.TempDir()
	t.Cleanup(func() {
		for _, pid := range c.pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		c.reap()
	})
	c.writeLayout(t)
	first := c.superviseOutside(t, state, "supervise", late)
	c.restore(t)
	kill := func(supervisor *exec.Cmd) {
		time.Sleep(time.Duration(rand.IntN(20000)) * time.Microsecond)
		_ = supervisor.Process.Kill()
		_ = supervisor.Wait()
		for pids := feederPids(); len(pids) > 0; pids = feederPids() {
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			time.Sleep(time.Millisecond)
		}
	}
	kill(first)
	log := slog.New(slog.NewTextHandler(&testLog{t: t}, nil))
	if missing := unattended(t, state); missing {
		kill(c.superviseOutside(t, state, "adopt", late))
	}
	unattended(t, state)
	s, err := feed.Adopt(t.Context(), state, log)
	if err == nil && late { // one that can't go on leaves it as it was
		if err := s.Leave(); err != nil {
			t.Error(err)
		}
		if !unattended(t, state) {
			t.Error("nothing is missing")
		}
		s, err = feed.Adopt(t.Context(), state, log)
	}
	if errors.Is(err, feed.ErrFed) && !late { // they were too quick for us
		h.order(t, syscall.SIGUSR1, 1)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range c.pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = s.Close()
	})
	if _, err := feed.Adopt(t.Context(), state, log); !errors.Is(err, feed.ErrFeeding) {
		t.Errorf("adopted twice: %v", err)
	}
	var bringing sync.WaitGroup
	if late {
		bringing.Go(func() { c.bring(s, 1, c.pages) })
	}
	h.order(t, syscall.SIGUSR1, 1)
	fed(t, s)
	h.order(t, syscall.SIGUSR1, 1)
	bringing.Wait()
	if n := s.Missing(); n != 0 {
		t.Errorf("%d pages are missing", n)
	}
	if err := s.Finish("hog", func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := feed.Await(t.Context(), state); err != nil {
		t.Errorf("the container has its memory: %v", err)
	}
	if whole, err := feed.Whole(state); !whole || err != nil {
		t.Errorf("all of it has come: %v, %v", whole, err)
	}
}

// unattended tells whether memory is missing, and wants to have been told so.
func unattended(t *testing.T, state string) bool {
	t.Helper()
	var missing bool
	for range 100 { // who was killed may be about to end
		err := feed.Check(state)
		if missing = errors.Is(err, feed.ErrUnattended); missing {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := feed.Await(t.Context(), state); missing != errors.Is(err, feed.ErrUnattended) {
		t.Errorf("missing is %v, and whoever waits is told %v", missing, err)
	}
	return missing
}

// superviseOutside has another process of this program supervise: it can be killed.
func (c *checkpoint) superviseOutside(t *testing.T, state, how string, late bool) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", how, c.dir, state, strconv.FormatBool(late), strconv.FormatUint(c.pages, 10))
	cmd.ExtraFiles, cmd.Stderr = []*os.File{c.store}, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the supervisor says %q: %v", line, err)
	}
	return cmd
}

// outside is that process.
func outside(how, dir, state string, late bool, pages uint64) error {
	c := &checkpoint{dir: dir, pages: pages, store: os.NewFile(3, "store")}
	var s *feed.Supervisor
	var err error
	switch {
	case how == "adopt":
		s, err = feed.Adopt(context.Background(), state, nil)
	case late:
		var store *os.File
		if store, err = hole.Memory("late store"); err != nil {
			return err
		}
		s, err = feed.Start(context.Background(), &feed.Options{Dir: dir, StateDir: state, Store: []feed.Part{{File: store}}, Punch: true, Late: true})
		if err == nil {
			err = s.Owe(feed.Owed{Slot: 1, Pages: pages})
		}
	default:
		s, err = feed.Start(context.Background(), &feed.Options{Dir: dir, StateDir: state, Store: []feed.Part{{File: c.store}}, Punch: true})
	}
	if err != nil {
		return err
	}
	if how == "supervise" {
		layout, err := os.Open(filepath.Join(dir, feed.LayoutName))
		if err != nil {
			return err
		}
		if err := s.Load(layout); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stdout, "ready")
	if late {
		go c.bring(s, 1, pages/3)
	}
	for { // CRIU itself may need some
		slot, err := s.Wanted()
		if err != nil {
			select {}
		}
		c.bring(s, slot, slot)
	}
}

// bring puts pages into the store that are missing there.
func (c *checkpoint) bring(s *feed.Supervisor, first, last uint64) {
	buf := make([]byte, memory.PageSize)
	file, err := s.StoreFile()
	if err != nil {
		panic(err)
	}
	defer file.Close()
	for slot := first; slot <= last; slot++ {
		if s.Held((slot-1)&^7+1, 1)[0]>>((slot-1)%8)&1 != 0 {
			continue
		}
		if _, err := c.store.ReadAt(buf, int64(slot*memory.PageSize)); err != nil {
			panic(err)
		}
		if _, err := file.WriteAt(buf, int64(slot*memory.PageSize)); err != nil {
			panic(err)
		}
		s.Arrived(slot, 1)
		if slot%64 == 0 || slot == last {
			s.Wake()
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// feederPids are the feeders of this test, by what they have open.
func feederPids() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	self, _ := os.Readlink("/proc/self/exe")
	for _, dir := range dirs {
		cmdline, err := os.ReadFile(dir + "/cmdline")
		if err != nil || !bytes.HasSuffix(cmdline, []byte("\x00feed\x00")) {
			continue
		}
		if exe, _ := os.Readlink(dir + "/exe"); exe != self {
			continue
		}
		if name, _ := os.ReadFile(dir + "/comm"); strings.TrimSpace(string(name)) == process.HolderName {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		pids = append(pids, pid)
	}
	return pids
}
