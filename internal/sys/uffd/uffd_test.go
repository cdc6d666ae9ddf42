package uffd_test

import (
	"bytes"
	"errors"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/uffd"
	"github.com/livemigrate/migrate/internal/testutil"
)

const page = 4096

// TestFaultsAreServed: a thread that reads a page which nobody filled gets what Copy puts there, or zeros.
func TestFaultsAreServed(t *testing.T) {
	fd := open(t, 0)
	area, start := mapped(t, 4)
	if err := fd.Register(start, 4*page, uffd.RegisterMissing); err != nil {
		t.Fatal(err)
	}
	got := make(chan byte)
	go func() { got <- area[2*page+5] }()
	event := read(t, fd)
	if event.Kind != uffd.Pagefault || event.Address&^(page-1) != start+2*page || event.Flags&uffd.FaultWrite != 0 {
		t.Fatalf("%+v", event)
	}
	if n, err := fd.Copy(start+2*page, bytes.Repeat([]byte{7}, page), 0); n != page || err != nil {
		t.Fatalf("copied %d, %v", n, err)
	}
	if b := <-got; b != 7 {
		t.Errorf("read %d", b)
	}

	go func() { got <- area[3*page] }()
	read(t, fd)
	if n, err := fd.Zeropage(start+3*page, page, uffd.DontWake); n != page || err != nil {
		t.Fatalf("zeroed %d, %v", n, err)
	}
	if err := fd.Wake(start, 4*page); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != 0 {
		t.Errorf("read %d", b)
	}
}

// TestCopySaysHowFarItCame: what the feeder's decisions hang on.
func TestCopySaysHowFarItCame(t *testing.T) {
	fd := open(t, 0)
	_, start := mapped(t, 8)
	if err := fd.Register(start, 4*page, uffd.RegisterMissing); err != nil {
		t.Fatal(err)
	}
	src := bytes.Repeat([]byte{1}, 8*page)
	if n, err := fd.Copy(start+2*page, src[:page], 0); n != page || err != nil {
		t.Fatalf("copied %d, %v", n, err)
	}
	for _, c := range []struct {
		what  string
		dst   uint64
		pages int
		n     int
		errno unix.Errno
	}{
		{"up to a page that is there", start, 4, 2 * page, unix.EAGAIN},
		{"a page that is there", start + 2*page, 1, 0, unix.EEXIST},
		{"over the end of the area", start + 3*page, 2, 0, unix.ENOENT},
		{"outside", start + 5*page, 1, 0, unix.ENOENT},
		{"not on a page", start + 1, 1, 0, unix.EINVAL},
	} {
		if n, err := fd.Copy(c.dst, src[:c.pages*page], 0); n != c.n || !errors.Is(err, c.errno) {
			t.Errorf("%s: %d, %v", c.what, n, err)
		}
	}
	if err := fd.Unregister(start, 4*page); err != nil {
		t.Fatal(err)
	}
	if _, err := fd.Copy(start+3*page, src[:page], 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("after Unregister: %v", err)
	}
}

func TestWriteProtectStopsWrites(t *testing.T) {
	fd := open(t, uffd.FeatureWP)
	area, start := mapped(t, 2)
	area[0], area[page] = 1, 1
	if err := fd.Register(start, 2*page, uffd.RegisterWP); err != nil {
		t.Fatal(err)
	}
	if err := fd.WriteProtect(start, 2*page, true); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { area[page] = 2; close(done) }()
	if e := read(t, fd); e.Kind != uffd.Pagefault || e.Flags&uffd.FaultWP == 0 || e.Address&^(page-1) != start+page {
		t.Fatalf("%+v", e)
	}
	if err := fd.WriteProtect(start+page, page, false); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestEventsOfAChangingAddressSpace(t *testing.T) {
	testutil.Root(t)
	fd := open(t, uffd.FeatureRemap|uffd.FeatureRemove|uffd.FeatureUnmap)
	area, start := mapped(t, 4)
	if err := fd.Register(start, 4*page, uffd.RegisterMissing); err != nil {
		t.Fatal(err)
	}
	change := func(call func() error) uffd.Event {
		t.Helper()
		done := make(chan error)
		go func() { done <- call() }()
		event := read(t, fd)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return event
	}
	if e := change(func() error { return unix.Madvise(area[:page], unix.MADV_DONTNEED) }); e.Kind != uffd.Remove ||
		e.Start != start || e.End != start+page {
		t.Errorf("%+v", e)
	}
	var moved unsafe.Pointer
	if e := change(func() (err error) {
		moved, err = unix.MremapPtr(unsafe.Pointer(&area[2*page]), 2*page, nil, 2*page, unix.MREMAP_MAYMOVE|unix.MREMAP_DONTUNMAP)
		return err
	}); e.Kind != uffd.Remap || e.From != start+2*page || e.To != uint64(uintptr(moved)) || e.Length != 2*page {
		t.Errorf("%+v, moved to %p", e, moved)
	}
	if e := change(func() error { return unix.MunmapPtr(moved, 2*page) }); e.Kind != uffd.Unmap ||
		e.Start != uint64(uintptr(moved)) || e.End != uint64(uintptr(moved))+2*page {
		t.Errorf("%+v", e)
	}
}

// TestForkHandsAChildsDescriptor: the child's memory is watched by a descriptor of its own, which works like any other.
func TestForkHandsAChildsDescriptor(t *testing.T) {
	testutil.Root(t)
	fd := open(t, uffd.FeatureFork)
	_, start := mapped(t, 2)
	if err := fd.Register(start, 2*page, uffd.RegisterMissing); err != nil {
		t.Fatal(err)
	}
	child := make(chan int)
	go func() {
		runtime.LockOSThread() // the child ends with the thread that made it
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 && errno == 0 {
			for {
				unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0) // no Go may run here
			}
		}
		child <- int(pid)
	}()
	event := read(t, fd)
	pid := <-child
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
	if event.Kind != uffd.Fork || event.Child <= 2 {
		t.Fatalf("%+v", event)
	}
	defer func() { _ = event.Child.Close() }()
	if n, err := event.Child.Copy(start, make([]byte, page), 0); n != page || err != nil {
		t.Errorf("copied %d, %v", n, err)
	}
}

func TestParseRefusesWhatIsNoMessage(t *testing.T) {
	for _, buf := range [][]byte{nil, make([]byte, uffd.MessageSize-1), make([]byte, uffd.MessageSize)} {
		if _, err := uffd.Parse(buf); !errors.Is(err, uffd.ErrMalformed) {
			t.Errorf("%d bytes: %v", len(buf), err)
		}
	}
}

func TestReadWithoutEvents(t *testing.T) {
	if n, err := open(t, 0).Read(make([]byte, uffd.MessageSize)); n != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%d, %v", n, err)
	}
}

func TestUnknownFeature(t *testing.T) {
	fd, err := uffd.Open(unix.O_CLOEXEC | uffd.UserModeOnly)
	testutil.Need(t, err == nil, "userfaultfd")
	defer func() { _ = fd.Close() }()
	if _, err := fd.API(1 << 62); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
	supported, err := uffd.Supported()
	if err != nil || supported&uffd.FeatureRemap == 0 {
		t.Errorf("supported %#x, %v", supported, err)
	}
}

// open gives a userfaultfd that has the features.
func open(t *testing.T, features uint64) uffd.FD {
	t.Helper()
	fd, err := uffd.Open(unix.O_CLOEXEC | unix.O_NONBLOCK | uffd.UserModeOnly)
	testutil.Need(t, err == nil, "userfaultfd")
	t.Cleanup(func() { _ = fd.Close() })
	// A goroutine that waits for a fault cannot be stopped, and the collector would wait for it, and the test for the collector.
	percent := debug.SetGCPercent(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	// One of the scheduler's processors waits for the fault, too: another has to be there, and nobody stops all to find out how many.
	processors := runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	t.Cleanup(func() { runtime.GOMAXPROCS(processors) })
	if _, err := fd.API(features); err != nil {
		t.Fatal(err)
	}
	return fd
}

// mapped is fresh memory outside Go's heap: the collector must never wait for a fault.
func mapped(t *testing.T, pages int) (area []byte, start uint64) {
	t.Helper()
	area, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	return area, uint64(uintptr(unsafe.Pointer(&area[0])))
}

// read waits for the next event.
func read(t *testing.T, fd uffd.FD) uffd.Event {
	t.Helper()
	buf := make([]byte, uffd.MessageSize)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		n, err := fd.Read(buf)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil || n != uffd.MessageSize {
			t.Fatalf("read %d, %v", n, err)
		}
		event, err := uffd.Parse(buf)
		if err != nil {
			t.Fatal(err)
		}
		return event
	}
	t.Fatal("no event came")
	return uffd.Event{}
}
