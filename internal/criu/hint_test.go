package criu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where an excerpt comes from.
const (
	provoked = "provoked" // CRIU 4.2.1 wrote these lines; names and times are altered, and lines between them left out
	sources  = "sources"  // written after CRIU's sources, by the format of the message, and looked up in the program of 4.2.1
)

// excerpt is of a log that ends in the failure which a hint is for.
type excerpt struct{ from, log string }

// excerpts has one for every entry of hints, by its fragments.
func excerpts() map[string]excerpt {
	return map[string]excerpt{
		"Connected TCP socket": {provoked, `(01.558664) Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.
(01.558679) Error (criu/cr-dump.c:1545): Dump files (pid: 71) failed with -1
(01.579507) Error (criu/cr-dump.c:1975): Dumping FAILED.`},
		"Need to set the --tcp-close": {sources, `(00.001204) Error (criu/image.c:94): Need to set the --tcp-close options.`},
		"In-flight connection (l)": {provoked, `(01.116310) Error (criu/sk-inet.c:185): inet: In-flight connection (l) for 1565b12
(01.116312) Error (criu/sk-inet.c:186): inet: In-flight connections can be ignored with the --skip-in-flight option.
(01.116327) Error (criu/cr-dump.c:1545): Dump files (pid: 18015) failed with -1`},
		"Can't get 1:34 opt": {sources, `(00.010210) Error (criu/sockets.c:537): sockets: Can't get 1:34 opt: Protocol not available`},
		"External socket": {provoked, `(00.906859) Error (criu/sk-unix.c:874): unix: External socket is used. Consider using --ext-unix-sk option.
(00.919172) Error (criu/cr-dump.c:1975): Dumping FAILED.`},
		"Can't dump half of stream unix connection": {sources, `(00.020117) Error (criu/sk-unix.c:881): unix: Can't dump half of stream unix connection. name: ; peer name: /run/app.sock`},
		"file locks are hold": {provoked, `(00.161997) Error (criu/file-lock.c:110): Some file locks are hold by dumping tasks! You can try --file-locks to dump them.
(00.162166) Error (criu/cr-dump.c:1975): Dumping FAILED.`},
		"Found dangling tty":      {sources, `(00.005301) Error (criu/tty.c:1830): tty: Found dangling tty with sid 201 pgid 201 (pts) on peer fd 0.`},
		"is not a session leader": {provoked, `(01.250777) Error (criu/pstree.c:304): The root process 27201 is not a session leader. Consider using --shell-job option`},
		"Can't create link remap": {provoked, `(01.011315) Error (criu/files-reg.c:1122): Can't create link remap for /tmp/x. Use link-remap option.
(01.011339) Error (criu/cr-dump.c:1545): Dump files (pid: 19280) failed with -1`},
		"Can't dump ghost file … increase limit": {provoked, `(00.745339) Error (criu/files-reg.c:1031): Can't dump ghost file /tmp/ghost of 3145728 size, increase limit
(00.745372) Error (criu/cr-dump.c:1545): Dump files (pid: 19037) failed with -1`},
		"has bad size": {sources, `(00.060318)      7: Error (criu/files-reg.c:2175): File bin/busybox has bad size 5 (expect 1131168)
(00.070013) Error (criu/cr-restore.c:1500): 21 exited, status=1
(00.070122) Error (criu/cr-restore.c:2331): Restoring FAILED.`},
		"has bad build-ID": {sources, `(00.060318)      7: Error (criu/files-reg.c:2153): File usr/bin/python3.11 has bad build-ID`},
		"has bad mode": {sources, `(00.060318)      7: Error (criu/files-reg.c:2294): File data/log has bad mode 0100600 (expect 0100644)
File r/w/x checks can be skipped with the --skip-file-rwx-check option`},
		"Can't lookup mount=": {provoked, `(00.252638) Error (criu/files-reg.c:1790): Can't lookup mount=27 for fd=-3 path=/usr/bin/python3.11
(00.252648) Error (criu/cr-dump.c:1440): Collect mappings (pid: 27060) failed with -1`},
		"Open files on overmounted mounts":          {sources, `(00.041552) Error (criu/files-reg.c:1796): Open files on overmounted mounts are not supported yet; mount=311 fd=5 path=/data/x`},
		"unreachable sharing":                       {sources, `(00.015020) Error (criu/mount.c:1093): mnt: Mount 412 ./data (master_id: 0 shared_id: 57) has unreachable sharing. Try --enable-external-masters.`},
		"is autodetected external mount":            {sources, `(00.015020) Error (criu/mount.c:3120): mnt: Mount 412:./late is autodetected external mount. Try "--ext-mount-map auto" to allow them.`},
		"doesn't have a proper root mount":          {sources, `(00.015020) Error (criu/mount.c:753): mnt: 412:./late doesn't have a proper root mount`},
		"No mapping for … mountpoint":               {sources, `(00.031400)      1: Error (criu/mount.c:3141): mnt: No mapping for 412:./etc/hosts mountpoint`},
		"Nested mount namespaces are not supported": {sources, `(00.015020) Error (criu/mount.c:4048): mnt: Nested mount namespaces are not supported without mnt_id in fdinfo`},
		"anon_inode:[io_uring]": {provoked, `(00.666046) Error (criu/proc_parse.c:502): Unknown shit 600 (anon_inode:[io_uring])
(00.666052) Error (criu/proc_parse.c:738): Can't open 24999's mapfile link 7fb899b81000: No such device or address
(00.666062) Error (criu/cr-dump.c:1440): Collect mappings (pid: 24999) failed with -1`},
		"Unknown shit": {sources, `(00.666046) Error (criu/proc_parse.c:502): Unknown shit 600 (anon_inode:[perf_event])
(00.666062) Error (criu/cr-dump.c:1440): Collect mappings (pid: 24999) failed with -1`},
		"Unsupported mapping found": {sources, `(00.022117) Error (criu/proc_parse.c:760): Unsupported mapping found 00007f3a5c000000-00007f3a5c200000`},
		"send_fds failed (-22)": {provoked, `(01.570001) Error (criu/page-xfer.c:410): page-xfer: No parent image found, though parent directory is set: No such file or directory
pie: 25409: Error (criu/pie/parasite.c:588): send_fds failed (-22)
(01.600221) Error (criu/parasite-syscall.c:280): Can't retrieve FDs from socket
(01.600261) Error (criu/cr-dump.c:1545): Dump files (pid: 25409) failed with -1`},
		"Can't dump file … of that type": {provoked, `(00.901712) Error (criu/files-ext.c:94): Can't dump file 8 of that type [600] (anon anon_inode:[perf_event])
(00.901744) Error (criu/cr-dump.c:1545): Dump files (pid: 29245) failed with -1`},
		"SysVIPC shmem map … doesn't live in IPC ns": {provoked, `(01.606397) Error (criu/cr-dump.c:478): Task 25996 with SysVIPC shmem map @7fb898e72000 doesn't live in IPC ns
(01.606399) Error (criu/cr-dump.c:1621): Dump mappings (pid: 25996) failed with -1`},
		"Sysv shmem … hole not supported": {sources, `(00.048113)      1: Error (criu/shmem.c:282): Sysv shmem 3 with tail hole not supported`},
		"Unsupported proto 262": {provoked, `(00.941722) Error (criu/sk-inet.c:137): inet: Unsupported proto 262 for socket 1566d07
(00.941726) Error (criu/sk-inet.c:139): inet: For Go programs, consider using "GODEBUG=multipathtcp=0" to disable MPTCP
(00.941755) Error (criu/cr-dump.c:1545): Dump files (pid: 19643) failed with -1`},
		"Unsupported proto":         {sources, `(00.010044) Error (criu/sk-inet.c:137): inet: Unsupported proto 132 for socket 49f92`},
		"Unsupported socket family": {sources, `(00.010044) Error (criu/sk-inet.c:280): inet: Unsupported socket family: 38`},
		"Unknown socket collected": {provoked, `(00.486097) Error (criu/sockets.c:767): sockets: BUG! Unknown socket collected (family 40)
(00.486120) Error (criu/cr-dump.c:1545): Dump files (pid: 22729) failed with -1`},
		"Non-empty write queue on an in-flight socket": {provoked, `(00.102331) Error (criu/sk-unix.c:506): unix: Non-empty write queue on an in-flight socket 0x249c551
(00.102349) Error (criu/cr-dump.c:1545): Dump files (pid: 16011) failed with -1`},
		"mqueue isn't empty":        {sources, `(00.031020) Error (criu/filesystems.c:650): mnt: mqueue isn't empty`},
		"Control messages in queue": {sources, `(00.010044) Error (criu/sk-queue.c:144): skqueue: Control messages in queue, not supported`},
		"The packetized mode for pipes": {provoked, `(02.217958) Error (criu/pipes.c:490): The packetized mode for pipes is not supported yet
(02.217973) Error (criu/cr-dump.c:1545): Dump files (pid: 22991) failed with -1`},
		"Can't get rlimit":                          {sources, `(00.010044) Error (criu/cr-dump.c:388): Can't get rlimit 0: Operation not permitted`},
		"Zombies with threads":                      {sources, `(00.010044) Error (criu/seize.c:882): Zombies with threads are not supported`},
		"Unable to freeze cgroup":                   {sources, `(10.010044) Error (criu/seize.c:635): Unable to freeze cgroup /sys/fs/cgroup/freezer/web (100 x 100ms attempts, timeout: 10s)`},
		"Timeout reached":                           {sources, `(10.010044) Error (criu/cr-dump.c:1808): Timeout reached. Try to interrupt: 0`},
		"PU feature … not supported on host":        {sources, `(00.002044) Error (criu/arch/x86/cpu.c:247): cpu: FPU feature required by image is not supported on host (fpu:0 fxsr:0 osxsave:0 xsaves:1)`},
		"CPU xfeatures":                             {sources, `(00.002044) Error (criu/arch/x86/cpu.c:262): cpu: CPU xfeatures has unsupported bits (0xe0)`},
		"CPU instruction capabilities do not match": {sources, `(00.002044) Error (criu/arch/x86/cpu.c:223): cpu: CPU instruction capabilities do not match run time`},
		"Unable to open an userfaultfd descriptor":  {sources, `(00.031400)      1: Error (criu/uffd.c:314): uffd: Unable to open an userfaultfd descriptor: Operation not permitted`},
		"Unable to open timens … Permission denied": {sources, `(00.031400)      1: Error (criu/image.c:635): Unable to open timens-13.img: Permission denied`},
		"One or more namespaces doesn't belong":     {sources, `(00.020044) Error (criu/namespaces.c:997): One or more namespaces doesn't belong to the target user namespace`},
		"Namespaces dumping finished with error":    {provoked, `(00.020044) Error (criu/namespaces.c:1163): Namespaces dumping finished with error 9`},
		"Pid … do not match expected":               {sources, `(00.031400)     12: Error (criu/cr-restore.c:1539): Pid 12 do not match expected 11`},
		"Can't fork for … File exists": {sources, `(00.010044) Error (criu/cr-restore.c:1230): Can't fork for 9254: File exists
(00.010101) Error (criu/cr-restore.c:2331): Restoring FAILED.`},
		"can only be restored … pid namespace": {sources, `(00.010044) Error (criu/cr-restore.c:2035): This process tree can only be restored in a new pid namespace.
criu should be re-executed with the "--namespace pid" option.`},
		"Can't bind inet socket … Cannot assign requested address": {sources, `(00.031400)      1: Error (criu/sk-inet.c:1059): inet: Can't bind inet socket (id 5): Cannot assign requested address`},
		"Can't bind inet socket … Address already in use":          {sources, `(00.031400)      1: Error (criu/sk-inet.c:1059): inet: Can't bind inet socket (id 5): Address already in use`},
		"Can't connect inet socket back":                           {sources, `(00.031400)      1: Error (criu/sk-inet.c:1085): inet: Can't connect inet socket back: Network is unreachable`},
		"Locking network failed":                                   {sources, `(00.010044) Error (criu/net.c:3332): net: Locking network failed: iptables-restore returned 1. This may be connected to disabled CONFIG_NETFILTER_XT_MARK kernel build config option.`},
		"iptables": {sources, `Error (criu/util.c:642): execvp("iptables-restore", ...) failed: No such file or directory
(00.010044) Error (criu/net.c:3332): net: Locking network failed: iptables-restore returned -1. This may be connected to disabled CONFIG_NETFILTER_XT_MARK kernel build config option.`},
		"Unsupported link": {sources, `(00.010044) Error (criu/net.c:650): net: Unsupported link 4 (type 1 kind wireguard)`},
		"Can't create a temporary directory … Read-only": {sources, `(00.092010)      1: Error (criu/mount.c:2955): mnt: Can't create a temporary directory: Read-only file system
(00.094212) Error (criu/cr-restore.c:2331): Restoring FAILED.`},
		"No space left on device":                         {sources, `(00.092010) Error (criu/protobuf.c:157): Can't write 4120 bytes: No space left on device`},
		"Disk quota exceeded":                             {sources, `(00.092010) Error (criu/bfd.c:131): Error flushing image: Disk quota exceeded`},
		"Unable to map ANON_VMA … Cannot allocate memory": {provoked, `(00.092010)      7: Error (criu/mem.c:964): Unable to map ANON_VMA: Cannot allocate memory`},
		"Cannot allocate memory":                          {sources, `(00.092010) Error (criu/cr-restore.c:1270): Can't allocate memory for thread: Cannot allocate memory`},
		"LSM specified but … not supported by kernel":     {sources, `(00.092010) Error (criu/lsm.c:406): apparmor LSM specified but apparmor not supported by kernel`},
		"Not supported images version":                    {sources, `(00.002010) Error (criu/image.c:89): Not supported images version 3`},
		"Magic doesn't match":                             {sources, `(00.002010) Error (criu/image.c:563): Magic doesn't match for pstree.img`},
		"RPC client reported script error": {provoked, `(00.042010) Error (criu/cr-service.c:235): RPC client reported script error
(00.042044) Error (criu/action-scripts.c:156): One of more action scripts failed`},
	}
}

// An entry without an excerpt was never seen to match, and one that another shadows is none: both fail here.
func TestEveryHintIsFoundInALog(t *testing.T) {
	const least = 40
	if len(hints) < least {
		t.Errorf("%d hints, at least %d were known", len(hints), least)
	}
	left := excerpts()
	for i, h := range hints {
		name := strings.Join(h.fragments, " … ")
		e, ok := left[name]
		if !ok {
			t.Errorf("%s: no excerpt of a log has it", name)
			continue
		}
		delete(left, name)
		t.Run(name+" "+e.from, func(t *testing.T) {
			cause := causeOf(t, e.log)
			if got := match(cause); got != i {
				t.Errorf("the cause %q is explained by hint %d, want %d", cause, got, i)
			}
			if cause == "" || strings.Contains(cause, "criu/") || strings.Contains(cause, "Error (") {
				t.Errorf("cause %q", cause)
			}
			if Hint(cause) != h.hint || h.hint == "" {
				t.Errorf("hint %q", Hint(cause))
			}
		})
	}
	for name := range left {
		t.Errorf("%s: an excerpt without a hint", name)
	}
}

// What only tells that it failed is no cause to hint at, and a warning is none at all.
func TestLogWithoutACauseHasNoHint(t *testing.T) {
	for log, want := range map[string]string{
		"(00.010101) Error (criu/cr-restore.c:2331): Restoring FAILED.": "Restoring FAILED.",
		"(00.010101) Warn  (criu/x.c:1): odd":                           "",
	} {
		if cause := causeOf(t, log); cause != want || Hint(cause) != "" {
			t.Errorf("cause %q, want %q; hint %q", cause, want, Hint(cause))
		}
	}
}

// causeOf reads the cause from a log that begins as every log does without CAP_SYS_RESOURCE.
func causeOf(t *testing.T, log string) string {
	t.Helper()
	const start = "(00.000001) Version: 4.2.1\n" +
		"(00.000411) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
	path := filepath.Join(t.TempDir(), "dump.log")
	if err := os.WriteFile(path, []byte(start+log+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Cause(path)
}
