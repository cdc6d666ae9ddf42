package preflight

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
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/livemigrate/migrate/internal/testutil"
)

// The test program is also what the tests look at: a process that has odd things.
const oddity = "PREFLIGHT_ODDITY"

func TestMain(m *testing.M) {
	if odd := os.Getenv(oddity); odd != "" {
		if err := beOdd(odd); err != nil {
			fmt.Fprintln(os.Stdout, err)
			os.Exit(1)
		}
		fmt.Fprintln(os.Stdout, "ready")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test has seen enough
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// beOdd does what its word says. All that it makes goes with the process.
func beOdd(odd string) error {
	word, argument, _ := strings.Cut(odd, " ")
	switch word {
	case "plain":
		return nil
	case "limited":
		found, err := Host(context.Background(), &HostOptions{Role: Source | Peer, Feed: true, Spool: "/run"})
		for _, f := range found {
			fmt.Fprintln(os.Stdout, f)
		}
		return err
	case "io_uring":
		var parameters [120]byte
		const setup, entries = 425, 4
		return number(syscall.Syscall(setup, entries, uintptr(unsafe.Pointer(&parameters)), 0))
	case "userfaultfd":
		const userModeOnly = 1
		return number(syscall.Syscall(syscallUserfaultfd, userModeOnly, 0, 0))
	case "mptcp":
		_, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 262)
		return err
	case "vsock":
		_, err := syscall.Socket(40, syscall.SOCK_STREAM, 0)
		return err
	case "usual":
		for _, s := range [][3]int{
			{syscall.AF_NETLINK, syscall.SOCK_RAW, 0},
			{syscall.AF_PACKET, syscall.SOCK_RAW, 0},
			{syscall.AF_INET, syscall.SOCK_RAW, 1},
			{syscall.AF_UNIX, syscall.SOCK_STREAM, 0},
			{syscall.AF_INET6, syscall.SOCK_STREAM, 0},
			{syscall.AF_INET, syscall.SOCK_DGRAM, 0},
		} {
			if _, err := syscall.Socket(s[0], s[1], s[2]); err != nil {
				return err
			}
		}
		if _, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0); err != nil {
			return err
		}
		if err := waitAtOneself(); err != nil {
			return err
		}
		return open("/dev/zero")
	case "unix", "unixgram":
		conn, err := net.Dial(word, argument)
		slippery = append(slippery, conn)
		return err
	case "accept": // and close
		listener, err := net.Listen("unix", argument)
		if err == nil {
			go answerOnce(listener)
		}
		return err
	case "dial": // again and again
		go func() {
			for {
				if conn, err := net.Dial("unix", argument); err == nil {
					_, _ = conn.Read(make([]byte, 1))
					conn.Close()
				}
			}
		}()
		return nil
	case "packets":
		var ends [2]int
		return syscall.Pipe2(ends[:], syscall.O_DIRECT)
	case "open":
		return open(argument)
	case "directory":
		f, err := os.Open(argument)
		slippery = append(slippery, f)
		return err
	case "semaphore":
		const one = 1 // EFD_SEMAPHORE
		return number(syscall.Syscall(syscallEventfd2, 3, one, 0))
	case "queue": // without a name as soon as it is open
		name := []byte(fmt.Sprintf("preflight-%d\x00", os.Getpid()))
		if err := number(syscall.Syscall6(syscallMqOpen, uintptr(unsafe.Pointer(&name[0])), syscall.O_RDWR|syscall.O_CREAT, 0o600, 0, 0, 0)); err != nil {
			return err
		}
		return number(syscall.Syscall(syscallMqUnlink, uintptr(unsafe.Pointer(&name[0])), 0, 0))
	case "lease":
		f, err := os.Create(argument)
		if err != nil {
			return err
		}
		slippery = append(slippery, f)
		return number(syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), 1024, syscall.F_WRLCK)) // F_SETLEASE
	case "deleted": // so many bytes
		size, err := strconv.Atoi(argument)
		if err != nil {
			return err
		}
		file, err := os.CreateTemp("", "odd")
		if err != nil {
			return err
		}
		slippery = append(slippery, file)
		_, err = file.Write(make([]byte, size))
		return errors.Join(err, os.Remove(file.Name()), file.Truncate(2*int64(size)), file.Sync())
	case "memfd":
		name := []byte("cache\x00")
		fd, _, errno := syscall.Syscall(syscallMemfdCreate, uintptr(unsafe.Pointer(&name[0])), 0, 0)
		if errno != 0 {
			return errno
		}
		_, err := syscall.Write(int(fd), make([]byte, 8<<20))
		return err
	case "shared":
		memory, err := syscall.Mmap(-1, 0, 8<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_ANONYMOUS|syscall.MAP_POPULATE)
		memory[0] = 1
		return err
	case "locked":
		memory, err := syscall.Mmap(-1, 0, 8<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
		return syscall.Mlock(memory)
	case "inotify":
		fd, err := syscall.InotifyInit()
		if err == nil {
			_, err = syscall.InotifyAddWatch(fd, argument, syscall.IN_CREATE)
		}
		return err
	case "leaderless": // its first thread ends, the rest some time later; with "for good" not at all
		if argument != "for good" {
			time.AfterFunc(30*time.Millisecond, func() { os.Exit(0) })
		}
		gone := make(chan struct{})
		for met := false; !met; {
			go func() {
				runtime.LockOSThread()
				if syscall.Gettid() == os.Getpid() {
					close(gone)
					_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
				}
				runtime.UnlockOSThread()
			}()
			select {
			case <-gone:
				met = true
			case <-time.After(time.Millisecond):
			}
		}
		return nil
	case "nested":
		child := exec.Command("/proc/self/exe")
		child.Env = []string{oddity + "=plain"}
		child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
		return child.Start()
	}
	return fmt.Errorf("nobody knows how to be %s", odd)
}

// waitAtOneself makes a connection that does not lead out of the process, and that nobody has accepted.
func waitAtOneself() error {
	listener, err := net.Listen("unix", fmt.Sprintf("@preflight-%d", os.Getpid()))
	if err != nil {
		return err
	}
	conn, err := net.Dial("unix", listener.Addr().String())
	slippery = append(slippery, listener, conn)
	return err
}

// slippery are files that stay open.
var slippery []io.Closer

func open(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	slippery = append(slippery, f)
	return err
}

func number(_, _ uintptr, errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// odd starts a process that has it, and ends it after the test.
func odd(t *testing.T, what string, change ...func(*exec.Cmd)) int {
	t.Helper()
	testutil.Root(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), oddity+"="+what, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, c := range change {
		c(cmd)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
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
		_ = in.Close()
		time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
	})
	line, _ := bufio.NewReader(out).ReadString('\n')
	testutil.Need(t, line == "ready\n", what+": "+strings.TrimSpace(line))
	return cmd.Process.Pid
}

func answerOnce(listener net.Listener) {
	for {
		if conn, err := listener.Accept(); err == nil {
			_, _ = conn.Write([]byte{1})
			conn.Close()
		}
	}
}

// scan looks at processes; the first is their init.
func scan(t *testing.T, pids ...int) (*Needs, Findings) {
	t.Helper()
	needs, found, err := Scan(t.Context(), &Subject{Pids: pids, Init: pids[0]})
	if err != nil {
		t.Fatal(err)
	}
	return needs, found
}

func has(f Findings, severity Severity, code Code) bool {
	return slices.ContainsFunc(f, func(f Finding) bool { return f.Severity == severity && f.Code == string(code) })
}

// What CRIU would refuse inside the freeze, or worse at the peer, is named before.
func TestScanFindsWhatCannotBeSaved(t *testing.T) {
	dir := t.TempDir()
	stream, err := net.Listen("unix", filepath.Join(dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	waiting, err := net.Listen("unix", filepath.Join(dir, "waiting")) // nobody accepts: it has no other end yet
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "datagrams")})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	for _, c := range []struct {
		what     string
		severity Severity
		code     Code
	}{
		{"io_uring", Blocker, IOUring},
		{"userfaultfd", Blocker, OwnUserfaultfd},
		{"mptcp", Blocker, MPTCP},
		{"vsock", Blocker, SocketKind},
		{"packets", Blocker, PipeMode},
		{"open /dev/fuse", Blocker, Device},
		{"semaphore", Blocker, OpenFile},
		{"queue", Blocker, OpenFile},
		{"directory /proc/1", Blocker, OpenFile},
		{"lease " + filepath.Join(dir, "leased"), Blocker, FileLease},
		{"unix " + stream.Addr().String(), Blocker, UnixSocket},
		{"unix " + waiting.Addr().String(), Blocker, UnixSocket},
		{"unixgram " + filepath.Join(dir, "datagrams"), Warning, UnixSocket},
		{"deleted 2000000", Note, DeletedFile},
		{"deleted 67108864", Warning, DeletedFile},
		{"memfd", Note, CopiedMemory},
		{"shared", Note, CopiedMemory},
		{"locked", Note, CopiedMemory},
	} {
		t.Run(c.what, func(t *testing.T) {
			pid := odd(t, c.what)
			if strings.HasSuffix(c.what, stream.Addr().String()) {
				conn, err := stream.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
			_, found := scan(t, pid)
			if !has(found, c.severity, c.code) {
				t.Errorf("no %s %s: %v", c.severity, c.code, found)
			}
			if more := found.Of(Blocker); c.severity != Blocker && len(more) > 0 || len(more) > 1 {
				t.Errorf("too much: %v", more)
			}
		})
	}
}

// Connections that come and go between two processes, as between a web server and its workers, don't lead out.
func TestScanWaitsForConnectionsThatPass(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	server := odd(t, "accept "+path)
	pids := []int{server, odd(t, "dial "+path), odd(t, "dial "+path)}
	for range 10 {
		if _, found := scan(t, pids...); len(found.Of(Blocker)) > 0 {
			t.Fatalf("%v", found)
		}
	}
}

func TestScanLeavesTheUsualAlone(t *testing.T) {
	for _, what := range []string{"plain", "usual"} {
		if _, found := scan(t, odd(t, what)); len(found) > 0 {
			t.Errorf("%s: %v", what, found)
		}
	}
}

// Memory is counted once, however many processes have it.
func TestScanCountsWhatIsCopied(t *testing.T) {
	first, second := odd(t, "memfd"), odd(t, "shared")
	needs, found, err := Scan(t.Context(), &Subject{Pids: []int{first, second}, Init: first, Tmpfs: []string{"/dev/shm"}})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(found, func(f Finding) bool { return f.Code == string(CopiedMemory) })
	if needs.Copied < 16<<20 || i < 0 || !strings.Contains(found[i].Text, "8 MB of shared anonymous memory") || !strings.Contains(found[i].Text, "8 MB of memfd memory") {
		t.Errorf("%d bytes, %v", needs.Copied, found)
	}
	if needs.Threads < 2 || needs.PipeSize < 4096 || needs.Processes != 2 {
		t.Errorf("needs %+v", needs)
	}
}

// A process that exec has brought in is no child of init: it would be lost without a word.
func TestScanNamesProcessesFromOutside(t *testing.T) {
	init, stranger := odd(t, "plain"), odd(t, "io_uring")
	_, found := scan(t, init, stranger)
	if len(found) != 1 || found[0].Code != string(Unrelated) || found[0].Severity != Warning || found[0].Pid != stranger {
		t.Errorf("%v", found)
	}
}

func TestScanFindsNestedNamespaces(t *testing.T) {
	init := odd(t, "nested")
	pids := []int{init}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", init)) // of whichever thread made it
	for _, task := range tasks {
		if children, err := os.ReadFile(task); err == nil && len(children) > 0 {
			var pid int
			if _, err := fmt.Sscan(string(children), &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	if _, found := scan(t, pids...); len(pids) != 2 || !has(found, Blocker, NestedNamespace) {
		t.Errorf("%v: %v", pids, found)
	}
}

func TestScanFindsADebugger(t *testing.T) {
	cmd := exec.Command(testutil.Command(t, "sleep"), "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	testutil.Root(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, found := scan(t, cmd.Process.Pid); !has(found, Blocker, Traced) {
		t.Errorf("%v", found)
	}
}

// A file that is open but in no mount of the container: its standard output, say.
func TestScanFindsFilesOfOutside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := syscall.Mount("tmpfs", filepath.Dir(path), "tmpfs", 0, "size=1m"); err != nil {
		testutil.Root(t)
		t.Fatal(err)
	}
	inside, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	// The child keeps the file of a mount that its own namespace has not.
	if err := syscall.Unmount(filepath.Dir(path), syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	pid := odd(t, "plain", func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{inside} })
	inside.Close()
	if _, found := scan(t, pid); !has(found, Blocker, OutsideFile) {
		t.Errorf("%v", found)
	}
}

// CRIU finds a watched file of an overlay in a few directories only.
func TestScanFindsWatchesOnOverlays(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	for _, name := range []string{"low/srv", "low/etc", "up", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root")
	options := fmt.Sprintf("lowerdir=%s/low,upperdir=%s/up,workdir=%s/work", dir, dir, dir)
	if err := syscall.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) })
	if _, found := scan(t, odd(t, "inotify "+filepath.Join(root, "srv"))); !has(found, Blocker, WatchedOverlay) {
		t.Errorf("on an overlay: %v", found)
	}
	if _, found := scan(t, odd(t, "inotify "+dir)); len(found) > 0 {
		t.Errorf("elsewhere: %v", found)
	}
}

// A process whose first thread is gone cannot be saved. One that is only about to end is none.
func TestScanWaitsForWhatJustEnds(t *testing.T) {
	for what, blocked := range map[string]bool{"leaderless": false, "leaderless for good": true} {
		pid := odd(t, what)
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			if p, err := readProcess(pid); err != nil || p.state == 'Z' {
				break
			}
		}
		if _, found := scan(t, pid); has(found, Blocker, DeadLeader) != blocked {
			t.Errorf("%s: %v", what, found)
		}
	}
}

// CRIU finds a watched file where it looks, which an absolute symlink does not lead out of.
func TestWatchesAreFoundInTheRoot(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"etc/ssl/certs", "run/log/web", "srv"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/run", filepath.Join(root, "var")); err != nil {
		t.Fatal(err)
	}
	known, all := wellKnown(t.Context(), root)
	for path, want := range map[string]bool{
		root: true, root + "/etc": true, root + "/etc/ssl/certs": true, root + "/run/log/web": true, root + "/srv": false, "/etc/passwd": false, "/run": false,
	} {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil || known[st.Ino] != want || !all {
			t.Errorf("%s: %v, want %v, %v, %v", path, known[st.Ino], want, all, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, all := wellKnown(ended, root); all {
		t.Error("a walk that was stopped says that it was whole")
	}
}

// A process that ends while it is looked at is no error.
func TestScanPassesOverWhatHasEnded(t *testing.T) {
	alive := odd(t, "plain")
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if needs, _ := scan(t, alive, gone.Process.Pid); needs.Processes != 1 {
		t.Errorf("%+v", needs)
	}
}
