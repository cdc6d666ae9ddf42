package track_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// hogVariable makes the test program a hog: a program that changes its memory in many ways, all at once, and checks what
// nobody should have changed.
const hogVariable = "TRACK_HOG"

func TestMain(m *testing.M) {
	switch what := os.Getenv(hogVariable); {
	case what == "tracker":
		trackerMain()
	case what == "filtered tracker":
		filter(allow)
		trackerMain()
	case what != "":
		hogMain(strings.Split(what, ","))
	default:
		os.Exit(m.Run())
	}
}

const page = 4096

// hogMain does what it is told, says "ready", and goes on until it is killed or an area is not as it was left.
func hogMain(tasks []string) {
	signal.Ignore(syscall.SIGTRAP) // to be tracked must not depend on it, nor change it
	for _, task := range tasks {
		switch task {
		case "writes":
			for range 2 {
				go writes(anonymous(8<<20), 0)
			}
		case "huge":
			area := anonymous(8 << 20)
			check(syscall.Madvise(area, 14)) // MADV_HUGEPAGE
			go writes(area, 0)
		case "idle":
			area := anonymous(8 << 20)
			for i := range len(area) / page {
				area[i*page] = byte(i)
			}
		case "large":
			fill(anonymous(large))
		case "largehuge":
			area := anonymous(large)
			check(syscall.Madvise(area, 14)) // MADV_HUGEPAGE
			fill(area)
		case "forked": // a child that has its parent's memory, and leaves it alone
			pause()
		case "moved":
			area, there := anonymous(large/4), anonymous(large)
			fill(area)
			remap(area, there[:len(area)])
			check(syscall.Madvise(there[len(area)/2:][:len(area)/4], 4)) // MADV_DONTNEED
			check(syscall.Munmap(area))
		case "threads": // that all wait in the kernel
			for range 300 {
				go func() {
					runtime.LockOSThread()
					for {
						_, _, _ = syscall.Syscall(syscall.SYS_PAUSE, 0, 0, 0) // not Raw: the scheduler has to know
					}
				}()
			}
		case "ends":
			go ends()
		case "execed":
			check(os.Setenv(hogVariable, "large"))
			check(syscall.Exec("/proc/self/exe", []string{"hog"}, os.Environ()))
		case "moves":
			go moves()
		case "drops":
			go drops()
		case "maps":
			go maps()
		case "protects":
			go protects()
		case "programs":
			go programs()
		case "forks":
			go forks()
		case "vfork":
			// It never comes back from the kernel, and Go's scheduler does not know that it is there: it has a processor of the
			// scheduler's for good, and whatever waits until all have stopped would wait for ever.
			debug.SetGCPercent(-1)
			runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1) // and not by itself later on, for which all stop
			go vfork()
		case "undumpable":
			const setDumpable = 4
			_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setDumpable, 0, 0)
			checkErrno(errno)
		case "seccomp":
			filter(kill)
		case "userfaultfd":
			ownUserfaultfd()
		case "exec":
			go func() {
				time.Sleep(100 * time.Millisecond)
				check(os.Setenv(hogVariable, "writes,exec"))
				check(syscall.Exec("/proc/self/exe", []string{"hog"}, os.Environ()))
			}()
		default:
			panic(task)
		}
	}
	fmt.Fprintln(os.Stdout, "ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // as long as the test lives
}

// writes puts a new number on pages here and there, and looks whether the old one was still there.
func writes(area []byte, pause time.Duration) {
	versions := make([]uint64, len(area)/page)
	random := rand.New(rand.NewPCG(1, 2))
	for n := uint64(1); ; n++ {
		i := random.IntN(len(versions))
		at := (*uint64)(unsafe.Pointer(&area[i*page+int(n%500)*8]))
		mark := (*uint64)(unsafe.Pointer(&area[i*page+page-8]))
		if *mark != versions[i] {
			fail("page %d has %d, not %d", i, *mark, versions[i])
		}
		*at, *mark, versions[i] = n, n, n
		if n%64 == 0 {
			time.Sleep(pause + 200*time.Microsecond)
		}
	}
}

// moves has areas moved about by mremap, whole and in part. What is left where they were is empty, and mapped, so that no
// other thread gets it in between.
func moves() {
	const size = 64 * page
	area := anonymous(2 * size)
	here, there := area[:size], area[size:]
	parts := anonymous(8 * size)
	for n := byte(1); ; n++ {
		for i := int(n) % 7; i < 64; i += 7 {
			here[i*page] = n
			parts[(int(n)+8*i)*page%len(parts)] = n
		}
		remap(here, there)
		here, there = there, here
		if from, to := int(n)%16, int(n)*7%16; from != to {
			remap(parts[from*size/2:][:size/2], parts[to*size/2:])
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// drops gives pages back by MADV_DONTNEED: some stay holes, some are read, which makes them zero, some are written again.
func drops() {
	area := anonymous(1024 * page)
	for n := 1; ; n++ {
		for i := range 1024 {
			if i%4 != 3 || n%16 == 0 {
				area[i*page+n%page] = byte(n)
			}
		}
		time.Sleep(2 * time.Millisecond)
		first := n * 37 % 900
		check(syscall.Madvise(area[first*page:(first+100)*page], 4)) // MADV_DONTNEED
		if sum := area[(first+3)*page] + area[(first+50)*page+n%page]; sum != 0 {
			fail("a dropped page is not zero")
		}
		check(syscall.Madvise(area[1000*page:], 8)) // MADV_FREE
		time.Sleep(2 * time.Millisecond)
	}
}

// maps puts new mappings in the place of others.
func maps() {
	area := anonymous(64 * page)
	at := uintptr(unsafe.Pointer(&area[0]))
	for n := byte(1); ; n++ {
		remapAnonymous(at+uintptr(n%32)*page, 32*page)
		for i := range 16 {
			area[(int(n%32)+2*i)*page] = n
		}
		time.Sleep(time.Millisecond)
	}
}

// protects makes areas unreadable and readable again, which splits and joins mappings.
func protects() {
	area := anonymous(256 * page)
	for n := 0; ; n++ {
		part := area[n%200*page:][:32*page]
		part[n%page] = byte(n)
		check(syscall.Mprotect(part, syscall.PROT_NONE))
		time.Sleep(time.Millisecond)
		if n%5 != 0 {
			check(syscall.Mprotect(part, syscall.PROT_READ))
		}
		time.Sleep(time.Millisecond)
		check(syscall.Mprotect(part, syscall.PROT_READ|syscall.PROT_WRITE))
	}
}

// programs starts short-lived programs, by vfork and exec.
func programs() {
	for {
		if err := exec.Command("/bin/true").Run(); err != nil {
			fail("program: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ends has children that end, or become another program and end, as soon as they can.
func ends() {
	runtime.LockOSThread()
	path, arguments := []byte("/bin/true\x00"), [2]*byte{}
	for n := 0; ; n++ {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 && errno == 0 {
			become(n%2 == 0, &path[0], &arguments)
		}
		checkErrno(errno)
		_, err := syscall.Wait4(int(pid), nil, 0, nil)
		check(err)
	}
}

//go:norace
//go:nosplit
func become(another bool, path *byte, arguments *[2]*byte) {
	if another {
		arguments[0] = path
		syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(arguments)), 0)
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// forks has children that write for a while without having called exec.
func forks() {
	runtime.LockOSThread()
	area := anonymous(2048 * page)
	var born []int
	for n := 0; ; n++ {
		area[n%2048*page] = byte(n)
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 && errno == 0 {
			child(area)
		}
		checkErrno(errno)
		time.Sleep(20 * time.Millisecond)
		if born = append(born, int(pid)); len(born) > 3 { // some live at any time
			_, err := syscall.Wait4(born[0], nil, 0, nil)
			check(err)
			born = born[1:]
		}
	}
}

// vfork has a child for ever that shares its parent's memory.
//
//go:norace
//go:nosplit
func vfork() {
	const cloneVM, cloneVfork = 0x100, 0x4000
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|cloneVM|cloneVfork, 0, 0, 0, 0, 0)
	for pid == 0 && errno == 0 {
		syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0)
	}
}

// large is memory beside which a Go program's own does not matter.
const large = 200 << 20

func fill(area []byte) {
	for i := range len(area) / page {
		area[i*page+i%page] = byte(i) | 1
	}
}

// pause has a child for ever that has a copy of its parent's memory.
//
//go:norace
//go:nosplit
func pause() {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	for pid == 0 && errno == 0 {
		syscall.RawSyscall(syscall.SYS_PAUSE, 0, 0, 0)
	}
}

// child is what a fork of a Go program can do: nothing of Go.
//
//go:norace
//go:nosplit
func child(area []byte) {
	wait := syscall.Timespec{Nsec: 1e6}
	for n := range 100 {
		area[n*13%2048*page+8] = byte(n)
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&wait)), 0, 0)
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// What a filter does with userfaultfd.
const kill, allow = 0x80000000, 0x7fff0000

// filter has the program's calls filtered.
func filter(userfaultfd uint32) {
	type instruction struct {
		code uint16
		_    uint8 // how far to jump if so
		jf   uint8 // and if not
		k    uint32
	}
	const sysUserfaultfd = 323
	program := []instruction{
		{code: 0x20},                           // load the number of the call
		{code: 0x15, jf: 1, k: sysUserfaultfd}, // is it that?
		{code: 0x06, k: userfaultfd},
		{code: 0x06, k: allow},
	}
	fprog := struct {
		n       uint16
		program *instruction
	}{uint16(len(program)), &program[0]}
	const setNoNewPrivs, sysSeccomp, modeFilter, sync = 38, 317, 1, 1
	_, _, errno := syscall.AllThreadsSyscall(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0)
	if errno == syscall.ENOTSUP { // with cgo, which the race detector is
		runtime.LockOSThread()
		_, _, errno = syscall.RawSyscall(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0)
	}
	checkErrno(errno)
	_, _, errno = syscall.RawSyscall(sysSeccomp, modeFilter, sync, uintptr(unsafe.Pointer(&fprog)))
	checkErrno(errno)
}

// ownUserfaultfd has an area watched by the program itself.
func ownUserfaultfd() {
	area := anonymous(64 * page)
	const sysUserfaultfd, userModeOnly, registerIoctl, apiIoctl, missing = 323, 1, 0xc020aa00, 0xc018aa3f, 1
	fd, _, errno := syscall.RawSyscall(sysUserfaultfd, userModeOnly|syscall.O_CLOEXEC, 0, 0)
	checkErrno(errno)
	api := [3]uint64{0xaa}
	_, _, errno = syscall.RawSyscall(syscall.SYS_IOCTL, fd, apiIoctl, uintptr(unsafe.Pointer(&api)))
	checkErrno(errno)
	for i := range 32 {
		area[i*page] = byte(i)
	}
	register := [4]uint64{uint64(uintptr(unsafe.Pointer(&area[0]))), uint64(len(area)), missing}
	_, _, errno = syscall.RawSyscall(syscall.SYS_IOCTL, fd, registerIoctl, uintptr(unsafe.Pointer(&register)))
	checkErrno(errno)
}

// anonymous is memory outside Go's heap.
func anonymous(size int) []byte {
	area, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	check(err)
	return area
}

func remapAnonymous(at, size uintptr) {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_MMAP, at, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_FIXED, ^uintptr(0), 0)
	checkErrno(errno)
}

func remap(from, to []byte) {
	const mayMove, fixed, dontUnmap = 1, 2, 4
	_, _, errno := syscall.RawSyscall6(syscall.SYS_MREMAP, uintptr(unsafe.Pointer(&from[0])), uintptr(len(from)), uintptr(len(from)),
		mayMove|fixed|dontUnmap, uintptr(unsafe.Pointer(&to[0])), 0)
	checkErrno(errno)
}

func check(err error) {
	if err != nil {
		fail("%v\n%s", err, debug.Stack())
	}
}

func checkErrno(errno syscall.Errno) {
	if errno != 0 {
		check(errno)
	}
}

var failed atomic.Bool

// fail ends the hog; the test sees that it ended.
func fail(format string, args ...any) {
	if !failed.Swap(true) {
		fmt.Fprintf(os.Stderr, "hog: "+format+"\n", args...)
	}
	os.Exit(3)
}
