package criu

import (
	"context"
	"encoding/binary"
	"errors"
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

	"github.com/checkpoint-restore/go-criu/v7/crit/images/cpuinfo"
	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
)

// program is the CRIU that this machine tests with.
func program(t *testing.T) string {
	t.Helper()
	testutil.Root(t)
	path, err := Locate("")
	testutil.Need(t, err == nil, "criu")
	return path
}

func start(t *testing.T, o *StartOptions) *Client {
	t.Helper()
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := syscall.Kill(c.Pid(), 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("criu %d is still there after Close: %v", c.Pid(), err)
		}
	})
	return c
}

// sleeper is a process in a session of its own that CRIU can dump.
func sleeper(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if len(args) == 0 {
		args = []string{"sleep", "1000"}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its children too
		_ = cmd.Wait()
	})
	time.Sleep(50 * time.Millisecond)
	return cmd
}

func dumpRequest(dir string, pid int) *Request {
	return &Request{ImagesDir: dir, LogFile: "dump.log", Options: &Options{
		Pid:         proto.Int32(int32(pid)),
		NetworkLock: rpc.CriuNetworkLockMethod_SKIP.Enum(),
	}}
}

// follow answers every notification with yes, except those in refuse.
func follow(t *testing.T, call *Call, refuse map[string]error) ([]string, error) {
	t.Helper()
	var scripts []string
	for {
		n, err := call.Next(t.Context())
		if err != nil {
			return scripts, err
		}
		scripts = append(scripts, n.Script)
		if cause := refuse[n.Script]; cause != nil {
			err = call.Refuse(t.Context(), cause)
		} else {
			err = call.Accept(t.Context())
		}
		if err != nil {
			return scripts, err
		}
	}
}

func TestWaitingClientAnswersQuestionsAndThenDumps(t *testing.T) {
	c := start(t, &StartOptions{Path: program(t)})
	version, err := c.Version(t.Context())
	if err != nil || !strings.Contains(version, ".") {
		t.Fatalf("version %q, %v", version, err)
	}
	features, err := c.FeatureCheck(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("criu %s, features %+v", version, features)
	dir := t.TempDir()
	if err := c.CPUInfoDump(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := c.CPUInfoCheck(t.Context(), dir); err != nil {
		t.Fatal(err)
	}

	victim := sleeper(t)
	call, err := c.Dump(t.Context(), dumpRequest(dir, victim.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := follow(t, call, nil)
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if len(scripts) < 2 || scripts[0] != "pre-dump" || scripts[len(scripts)-1] != "post-dump" {
		t.Errorf("notifications %v", scripts)
	}
	if _, err := os.Stat(filepath.Join(dir, "inventory.img")); err != nil {
		t.Error(err)
	}
}

// Where pages come later none may come with a huge one. CRIU's look at the kernel takes the switch back, except where it has notes.
func TestChildGoesWithoutHugePages(t *testing.T) {
	huge, err := process.HugePages(os.Getpid())
	testutil.Kernel(t, err == nil && huge, "transparent huge pages")
	c := start(t, &StartOptions{Path: program(t), SmallPages: true})
	if _, err := c.FeatureCheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if huge, err := process.HugePages(c.Pid()); err != nil || huge {
		t.Errorf("criu has huge pages: %v, %v", huge, err)
	}
	if huge, err := process.HugePages(os.Getpid()); err != nil || !huge {
		t.Errorf("this process has huge pages afterwards: %v, %v", huge, err)
	}
}

func TestRefusedDumpLeavesTheTaskRunning(t *testing.T) {
	victim := sleeper(t)
	cause := errors.New("the peer said no")
	call, err := start(t, &StartOptions{Path: program(t)}).Dump(t.Context(), dumpRequest(t.TempDir(), victim.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow(t, call, map[string]error{"post-dump": cause}); !errors.Is(err, cause) {
		t.Errorf("the error does not carry the caller's cause: %v", err)
	}
	if got := state(t, victim.Process.Pid); got != "S" && got != "R" { // R: on its way back to sleep
		t.Errorf("state %s after a refused dump", got)
	}
}

func TestRestoredTaskIsTheCallersChild(t *testing.T) {
	dir := t.TempDir()
	victim := sleeper(t)
	call, err := start(t, &StartOptions{Path: program(t)}).Dump(t.Context(), dumpRequest(dir, victim.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow(t, call, nil); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	_ = victim.Wait() // its pid is taken until it is reaped
	call, err = start(t, &StartOptions{Path: program(t)}).Restore(t.Context(), &Request{ImagesDir: dir, LogFile: "restore.log", Options: &Options{
		RstSibling: proto.Bool(true),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow(t, call, nil); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if call.RootPid() != victim.Process.Pid {
		t.Errorf("restored as %d, was %d", call.RootPid(), victim.Process.Pid)
	}
	if err := syscall.Kill(call.RootPid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(call.RootPid(), nil, 0, nil); err != nil {
		t.Errorf("wait for the restored task: %v", err)
	}
}

func TestFailureNamesTheLogsCauseAndTheCure(t *testing.T) {
	victim := sleeper(t, "flock", filepath.Join(t.TempDir(), "lock"), "sleep", "1000")
	dir := t.TempDir()
	call, err := start(t, &StartOptions{Path: program(t)}).Dump(t.Context(), dumpRequest(dir, victim.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, err = follow(t, call, nil)
	failure, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("not an *Error: %v", err)
	}
	if !strings.Contains(failure.Cause, "file locks are hold") || failure.Hint != "give --file-locks" {
		t.Errorf("cause %q, hint %q", failure.Cause, failure.Hint)
	}
	if failure.LogPath != filepath.Join(dir, "dump.log") || strings.Contains(err.Error(), "\n") {
		t.Errorf("log %q, text %q", failure.LogPath, err)
	}
}

func TestCancelledCallKillsAndReapsTheChild(t *testing.T) {
	victim := sleeper(t)
	c := start(t, &StartOptions{Path: program(t)})
	call, err := c.Dump(t.Context(), dumpRequest(t.TempDir(), victim.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := call.Next(t.Context()); err != nil || n.Script != "pre-dump" {
		t.Fatalf("%v, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := call.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	if err := syscall.Kill(c.Pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("criu is not reaped: %v", err)
	}
}

func TestProgramThatIsNoCRIUIsNamedByItsLastWords(t *testing.T) {
	testutil.Root(t)
	path := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho no such interpreter >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := Start(t.Context(), &StartOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Version(t.Context())
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "no such interpreter") {
		t.Errorf("%v", err)
	}
}

// state is the letter that /proc shows.
func state(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[0]
}

// A program that found an instruction at the source would die of SIGILL at a peer without it.
func TestProcessorWithoutAnInstructionIsRefused(t *testing.T) {
	testutil.Need(t, runtime.GOARCH == "amd64", "an x86 processor")
	c := start(t, &StartOptions{Path: program(t)})
	dir := t.TempDir()
	if err := c.CPUInfoDump(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "cpuinfo.img")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const head = 12 // two magic numbers and the entry's length
	entry := new(cpuinfo.CpuinfoEntry)
	if err := proto.Unmarshal(content[head:], entry); err != nil {
		t.Fatal(err)
	}
	for i := range entry.GetX86Entry()[0].GetCapability() {
		entry.GetX86Entry()[0].Capability[i] = 0xffffffff
	}
	payload, err := proto.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(content[8:], uint32(len(payload)))
	if err := os.WriteFile(path, append(content[:head], payload...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := errors.AsType[*Error](c.CPUInfoCheck(t.Context(), dir)); !ok {
		t.Error("a processor that lacks instructions passed")
	}
}
