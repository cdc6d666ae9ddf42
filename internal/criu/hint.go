package criu

import "strings"

// hints say what cures a cause. The flags are those of `migrate checkpoint` and `migrate restore`. A cause matches when it
// holds every fragment; the first match counts. The fragments are CRIU's own words (4.1 to 4.3), found in its sources.
var hints = []struct {
	fragments []string
	hint      string
}{
	{[]string{"Connected TCP socket"}, "an open TCP connection: give --tcp-established to keep it"},
	{[]string{"Need to set the --tcp-close"}, "the checkpoint was taken without its TCP connections: restore it the same way"},
	{[]string{"In-flight connection (l)"}, "a connection is not accepted yet: give --tcp-skip-in-flight to drop it, its client tries again"},
	{[]string{"Can't get 1:34 opt"}, "this CRIU is too old for this kernel: use 4.2 or newer"},
	{[]string{"External socket"}, "a unix socket whose peer is outside of the container: give --ext-unix-sk"},
	{[]string{"Can't dump half of stream unix connection"}, "a connected unix stream leads out of the container and cannot be kept: close it first"},
	{[]string{"file locks are hold"}, "give --file-locks"},
	{[]string{"Found dangling tty"}, "a terminal of outside is the container's own: give --shell-job, or run it with a terminal of its own"},
	{[]string{"is not a session leader"}, "the container's process belongs to a session outside: give --shell-job"},
	{[]string{"Can't create link remap"}, "an unlinked file is still open: give --link-remap"},
	{[]string{"Can't dump ghost file", "increase limit"}, "an unlinked file is still open and larger than --ghost-limit: raise it"},
	{[]string{"has bad size"}, "the file changed after the checkpoint: restore with the root filesystem of that moment"},
	{[]string{"has bad build-ID"}, "the program file was replaced after the checkpoint: restore with the root filesystem of that moment"},
	{[]string{"has bad mode"}, "the file's mode changed after the checkpoint: set it back"},
	{[]string{"Can't lookup mount="}, "a descriptor points to a file outside of the container's mounts (stdio to a log file?): use pipes, a terminal or --log-file"},
	{[]string{"Open files on overmounted mounts"}, "close the file that is hidden under another mount"},
	{[]string{"unreachable sharing"}, "the mount is shared with one outside: make its propagation private in config.json"},
	{[]string{"is autodetected external mount"}, "a mount that config.json does not name came into the container later: unmount it first"},
	{[]string{"doesn't have a proper root mount"}, "a mount that config.json does not name came into the container later: unmount it first"},
	{[]string{"No mapping for", "mountpoint"}, "config.json does not name this mount of the checkpoint: restore with the bundle it was taken from"},
	{[]string{"Nested mount namespaces are not supported"}, "a process inside has a mount namespace of its own together with a user namespace: stop it first"},
	{[]string{"anon_inode:[io_uring]"}, "CRIU cannot save io_uring: have the program do without"},
	{[]string{"Unknown shit"}, "the process maps a kind of file that CRIU cannot save: unmap it first"},
	{[]string{"Unsupported mapping found"}, "the process maps device memory (a GPU, io_uring?) that CRIU cannot save"},
	{[]string{"send_fds failed (-22)"}, "the kernel hands out no descriptor of this kind, which is io_uring's: have the program do without"},
	{[]string{"Can't dump file", "of that type"}, "this kind of open file cannot be saved: close it first"},
	{[]string{"SysVIPC shmem map", "doesn't live in IPC ns"}, "the process shares System V memory with the host: give the container an ipc namespace of its own"},
	{[]string{"Sysv shmem", "hole not supported"}, "a System V shared memory segment is mapped in part only, which CRIU cannot save"},
	{[]string{"Unsupported proto 262"}, "CRIU cannot save MPTCP sockets: for a Go program run it with GODEBUG=multipathtcp=0"},
	{[]string{"Unsupported proto"}, "a socket of a protocol that CRIU cannot save: close it first"},
	{[]string{"Unsupported socket family"}, "a socket of a family that CRIU cannot save: close it first"},
	{[]string{"Unknown socket collected"}, "a socket of a family (vsock?) that CRIU cannot save: close it first"},
	{[]string{"Non-empty write queue on an in-flight socket"}, "a unix connection that nobody has accepted yet has data in it: try again in a moment, or let the server have more workers"},
	{[]string{"mqueue isn't empty"}, "there are POSIX message queues, which CRIU cannot save: remove them first"},
	{[]string{"Control messages in queue"}, "a unix socket holds descriptors that nobody has received yet: try again in a moment"},
	{[]string{"The packetized mode for pipes"}, "a pipe in packet mode (O_DIRECT) cannot be saved"},
	{[]string{"Can't get rlimit"}, "CRIU may not read the limits of another user's process: give CAP_SYS_RESOURCE, a CRIU that is linked dynamically, or the container a user namespace"},
	{[]string{"Zombies with threads"}, "a process with threads was just ending: try again in a moment"},
	{[]string{"Unable to freeze cgroup"}, "a process did not stop in time (uninterruptible I/O?): try again"},
	{[]string{"Timeout reached"}, "a process did not stop in time (uninterruptible I/O?): try again"},
	{[]string{"PU feature", "not supported on host"}, "this machine's CPU lacks what the container uses: restore on one that has it"},
	{[]string{"CPU xfeatures"}, "this machine's CPU lacks what the container uses: restore on one that has it"},
	{[]string{"CPU instruction capabilities do not match"}, "this machine's CPU lacks what the container uses: restore on one that has it"},
	{[]string{"Unable to open an userfaultfd descriptor"}, "user namespaces may not use userfaultfd here: set the sysctl vm.unprivileged_userfaultfd=1, or do without --lazy-pages"},
	{[]string{"Unable to open timens", "Permission denied"}, "the user namespace's root cannot read the image directory: make its parents searchable"},
	{[]string{"One or more namespaces doesn't belong"}, "a namespace given by path must belong to the container's user namespace"},
	{[]string{"Namespaces dumping finished with error"}, "see the log for the namespace that could not be saved"},
	{[]string{"Pid", "do not match expected"}, "a pid of the checkpoint is taken: give the container a pid namespace of its own"},
	{[]string{"Can't fork for", "File exists"}, "a pid of the checkpoint is taken: give the container a pid namespace of its own"},
	{[]string{"can only be restored", "pid namespace"}, "config.json has no pid namespace, but the checkpoint has one: restore with the bundle it was taken from"},
	{[]string{"Can't bind inet socket", "Cannot assign requested address"}, "the container's address is not on this host: give it the same --network or network namespace"},
	{[]string{"Can't bind inet socket", "Address already in use"}, "the container's port is taken here: stop its user, or give the container a network namespace of its own"},
	{[]string{"Can't connect inet socket back"}, "the container's address or its route is not on this host: give it the same --network or network namespace"},
	{[]string{"Locking network failed"}, "CRIU could not lock the network: install iptables, or give the container a --network of ours"},
	{[]string{"iptables"}, "CRIU could not lock the network: install iptables, or give the container a --network of ours"},
	{[]string{"Unsupported link"}, "a network interface of a kind that CRIU cannot save: remove it, or use a network namespace by path"},
	{[]string{"Can't create a temporary directory", "Read-only"}, "CRIU needs a directory /tmp in a root filesystem that is read-only: make it in the bundle's"},
	{[]string{"No space left on device"}, "the disk is full"},
	{[]string{"Disk quota exceeded"}, "the disk quota is used up"},
	{[]string{"Unable to map ANON_VMA", "Cannot allocate memory"}, "not enough memory, or a process has set more addresses aside than there is: let it reserve less (MariaDB: --innodb-buffer-pool-size-max), or set vm.overcommit_memory=1 on the host that restores"},
	{[]string{"Cannot allocate memory"}, "not enough memory"},
	{[]string{"LSM specified but", "not supported by kernel"}, "this host lacks that security module: leave out --lsm-profile"},
	{[]string{"Not supported images version"}, "the checkpoint comes from another CRIU: restore with that one"},
	{[]string{"Magic doesn't match"}, "the image file is damaged, or not CRIU's"},
	{[]string{"RPC client reported script error"}, "the caller refused to go on"},
}

// Hint is what cures the cause, or nothing when it is not known.
func Hint(cause string) string {
	if i := match(cause); i >= 0 {
		return hints[i].hint
	}
	return ""
}

// match is the place in hints of the first that fits, or -1.
func match(cause string) int {
next:
	for i, h := range hints {
		for _, fragment := range h.fragments {
			if !strings.Contains(cause, fragment) {
				continue next
			}
		}
		return i
	}
	return -1
}
