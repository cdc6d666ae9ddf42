package criu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The excerpts are from real logs of CRIU 4.1 to 4.3, cut.
func TestLogsAreExplained(t *testing.T) {
	const rlimit = "(00.000411) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
	tests := []struct {
		name, log   string
		cause, hint string // what they must hold
	}{
		{
			"established connection",
			"(00.010) Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.\n" +
				"(00.011) Error (criu/cr-dump.c:1698): Dump files (pid: 71) failed with -1\n(00.012) Error (criu/cr-dump.c:2128): Dumping FAILED.\n",
			"Connected TCP socket", "--tcp-established",
		},
		{
			"a ring of io_uring, after shared memory that no parent has",
			"(00.040) Error (criu/page-xfer.c:410): page-xfer: No parent image found, though parent directory is set: No such file or directory\n" +
				"(00.050) Error (criu/files.c:440): send_fds failed (-22)\n(00.051) Error (criu/cr-dump.c:2128): Dumping FAILED.\n",
			"send_fds failed", "io_uring",
		},
		{
			"external socket",
			"(00.020) Error (criu/sk-unix.c:874): unix: External socket is used. Consider using --ext-unix-sk option.\n",
			"External socket", "--ext-unix-sk",
		},
		{
			"stream out of the container",
			"(00.020) Error (criu/sk-unix.c:881): unix: Can't dump half of stream unix connection. name: ; peer name: \n",
			"half of stream", "cannot be kept",
		},
		{
			"file locks",
			"(00.003) Error (criu/file-lock.c:110): locks: Some file locks are hold by dumping tasks! You can try --file-locks to dump them.\n",
			"file locks", "--file-locks",
		},
		{
			"terminal of a shell",
			"(00.005) Error (criu/tty.c:1831): tty: Found dangling tty with sid 201 pgid 201 (pts) on peer fd 0.\n",
			"dangling tty", "--shell-job",
		},
		{
			"unlinked file",
			"(00.005) Error (criu/files-reg.c:1122): Can't create link remap for /tmp/x. Use link-remap option.\n",
			"link remap", "--link-remap",
		},
		{
			"large unlinked file",
			"(00.006) Error (criu/files-reg.c:1031): Can't dump ghost file /var/log/x of 2097152 size, increase limit\n",
			"ghost file", "--ghost-limit",
		},
		{
			"log file as stdout",
			"(00.006) Error (criu/files-reg.c:1790): Can't lookup mount=24 for fd=1 path=/tmp/out\n",
			"Can't lookup mount", "--log-file",
		},
		{
			"file changed, in a task's lines",
			"(00.06)      7: Error (criu/files-reg.c:2175): File bin/busybox has bad size 5 (expect 1131168)\n" +
				"(00.07) Error (criu/cr-restore.c:1500): 21 exited, status=1\n(00.07) Error (criu/cr-restore.c:2331): Restoring FAILED.\n",
			"bin/busybox has bad size", "root filesystem",
		},
		{
			"old CRIU",
			"(00.01) Error (criu/sockets.c:537): sockets: Can't get 1:34 opt: Protocol not available\n",
			"1:34", "4.2",
		},
		{
			"multipath",
			"(00.01) Error (criu/sk-inet.c:137): inet: Unsupported proto 262 for socket 49f92\n",
			"proto 262", "multipathtcp=0",
		},
		{
			"pid in use",
			"(00.01) Error (criu/cr-restore.c:1230): Can't fork for 9254: File exists\n",
			"9254", "pid namespace",
		},
		{
			"another user's limits",
			"(00.01) Error (criu/cr-dump.c:390): Can't get rlimit 0: Operation not permitted\n",
			"rlimit 0", "user namespace",
		},
		{
			"loopback missing",
			"(00.01)      1: Error (criu/sk-inet.c:1010): inet: Can't connect inet socket back: Network is unreachable\n",
			"connect inet socket back", "--network",
		},
		{
			"other CPU",
			"(00.00) Error (criu/arch/x86/cpu.c:246): cpu: CPU instruction capabilities do not match run time\n",
			"do not match", "CPU",
		},
		{
			"read-only root without /tmp",
			"(00.092) Error (criu/mount.c:2955): mnt: Can't create a temporary directory: Read-only file system\n" +
				"(00.094) Error (criu/cr-restore.c:2331): Restoring FAILED.\n",
			"Can't create a temporary directory", "/tmp",
		},
		{
			"only consequences",
			"(00.00) Error (criu/cr-restore.c:2331): Restoring FAILED.\n",
			"Restoring FAILED", "",
		},
		{"nothing", "(00.00) Warn  (criu/x.c:1): odd\n", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dump.log")
			if err := os.WriteFile(path, []byte("(00.000001) Version: 4.2.1\n"+rlimit+test.log), 0o600); err != nil {
				t.Fatal(err)
			}
			cause := Cause(path)
			if !strings.Contains(cause, test.cause) || test.cause == "" && cause != "" || strings.Contains(cause, "criu/") {
				t.Errorf("cause %q, want %q", cause, test.cause)
			}
			if hint := Hint(cause); !strings.Contains(hint, test.hint) || test.hint == "" && hint != "" {
				t.Errorf("hint %q, want %q", hint, test.hint)
			}
		})
	}
}

func TestCauseOfAMissingLogIsNone(t *testing.T) {
	if cause := Cause(filepath.Join(t.TempDir(), "none")); cause != "" {
		t.Error(cause)
	}
}

func TestErrorIsOneLineWithTheCureAndTheLog(t *testing.T) {
	tests := []struct {
		err  *Error
		want string
	}{
		{&Error{Op: "dump", Cause: "why", Hint: "do that", LogPath: "/l"}, "criu dump: why: do that (log: /l)"},
		{&Error{Op: "dump", Errno: 3}, "criu dump: no such process"},
		{&Error{Op: "restore"}, "criu restore: failed without a reason"},
	}
	for _, test := range tests {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestLocatePrefersWhatIsNamed(t *testing.T) {
	dir := t.TempDir()
	program := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flag, env, onPath := program("flag"), program("env"), program("criu")
	t.Setenv("PATH", dir)
	for _, test := range []struct{ flag, env, want string }{
		{flag, env, flag}, {"", env, env}, {"", "", onPath},
	} {
		t.Setenv(Environment, test.env)
		if got, err := Locate(test.flag); err != nil || got != test.want {
			t.Errorf("flag %q, environment %q: %q, %v", test.flag, test.env, got, err)
		}
	}
	if _, err := Locate(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing program that is named must not be replaced by another")
	}
}
