package preflight

// Code names a kind of finding. Scripts go by it: one is never changed, only added. docs/operations.md lists them all.
type Code string

// What a host lacks.
const (
	Privileges  Code = "privileges"   // rights that every move needs
	CRIUMissing Code = "criu-missing" // CRIU is not there, or does not start
	CRIUOld     Code = "criu-old"     // CRIU is too old, for the kernel or for the other host's
	Tracing     Code = "tracing"      // nobody may trace processes
	Tracker     Code = "tracker"      // how changed memory is found
	Userfaultfd Code = "userfaultfd"  // memory cannot be given to a container that runs already
	OpenFiles   Code = "open-files"   // limits of open files
	PipeSize    Code = "pipe-size"    // limits of pipes
	ImageSpace  Code = "image-space"  // room for images
)

// What is in a container's processes.
const (
	CopiedMemory    Code = "copied-memory"    // memory that is copied while the container stands still
	PinnedMemory    Code = "pinned-memory"    // memory that devices write to
	IOUring         Code = "io-uring"         // an io_uring instance
	DeletedFile     Code = "deleted-file"     // an open or mapped file without a name, which CRIU copies
	OwnUserfaultfd  Code = "own-userfaultfd"  // a userfaultfd of the container's
	OpenFile        Code = "open-file"        // a descriptor of a kind that cannot be saved
	Device          Code = "device"           // an open or mapped device
	OutsideFile     Code = "outside-file"     // an open file that is in no mount of the container
	WatchedOverlay  Code = "watched-overlay"  // inotify on files of an overlay
	UnixSocket      Code = "unix-socket"      // a connection that leads out of the container
	SocketKind      Code = "socket-kind"      // a socket of a kind that cannot be saved
	MPTCP           Code = "mptcp"            // a socket of MPTCP
	PipeMode        Code = "pipe-mode"        // a pipe in packet mode
	FileLease       Code = "file-lease"       // a lease, which reading the file breaks
	NestedNamespace Code = "nested-namespace" // a process in namespaces of its own
	Traced          Code = "traced"           // a process under a debugger
	DeadLeader      Code = "dead-leader"      // a process that lives on in threads
	Unrelated       Code = "unrelated"        // a process that init is no ancestor of
	Uninterruptible Code = "uninterruptible"  // a process that waits for a disk
	ForeignLimits   Code = "foreign-limits"   // a process whose limits cannot be read
	SeccompNotify   Code = "seccomp-notify"   // system calls that somebody outside answers
	SecurityLabel   Code = "security-label"   // an AppArmor profile or SELinux context
)

// What is in a container's configuration.
const (
	NotRunning   Code = "not-running"
	Arriving     Code = "arriving"      // it has not got all of its memory yet
	Unrestorable Code = "unrestorable"  // network devices, mounts that cannot be made again
	ReadOnlyRoot Code = "readonly-root" // a root without the directory that CRIU needs
	BindMount    Code = "bind-mount"    // a directory or file that must be at the peer, or may not go there
	HostNetwork  Code = "host-network"  // sockets are bound to this host's addresses
	Connections  Code = "connections"   // TCP connections that are closed
)

// What the peer is not fit for.
const (
	Machine          Code = "machine"           // another architecture
	Processor        Code = "processor"         // instructions are missing
	Configured       Code = "configuration"     // a config.json that no container can be made of
	IDTaken          Code = "id-taken"          // it has a container of this id
	BundleTaken      Code = "bundle-taken"      // the directory for its files holds somebody else's
	Bridge           Code = "bridge"            // of the container's link
	NetworkNamespace Code = "network-namespace" // one that its config names by path, or what is in it
	DiskSpace        Code = "disk-space"
	MemorySpace      Code = "memory-space"
	MemoryLimit      Code = "memory-limit"  // of a cgroup
	ProcessLimit     Code = "process-limit" // of a cgroup, or the kernel's
	LogFile          Code = "log-file"      // it cannot be written
	ForeignStdio     Code = "foreign-stdio" // pipes or a terminal of an engine, which stays behind
	FileMissing      Code = "file-missing"  // a file that does not travel, and is open or mapped
	FileDiffers      Code = "file-differs"
	KernelOlder      Code = "kernel-older"
	NotShared        Code = "not-shared" // a directory or file that both hosts should have, and each has its own
	PeerBusy         Code = "peer-busy"  // it receives as many containers as it takes at once
	TooLarge         Code = "too-large"  // for the peer's limit
)

// Codes are all of them.
func Codes() []Code {
	return []Code{
		Privileges, CRIUMissing, CRIUOld, Tracing, Tracker, Userfaultfd, OpenFiles, PipeSize, ImageSpace,
		CopiedMemory, DeletedFile, PinnedMemory, IOUring, OwnUserfaultfd, OpenFile, Device, OutsideFile, WatchedOverlay, UnixSocket,
		SocketKind, MPTCP, PipeMode, FileLease, NestedNamespace, Traced, DeadLeader, Unrelated, Uninterruptible, ForeignLimits, SeccompNotify, SecurityLabel,
		NotRunning, Arriving, Unrestorable, ReadOnlyRoot, BindMount, HostNetwork, Connections,
		Machine, Processor, Configured, IDTaken, BundleTaken, Bridge, NetworkNamespace, DiskSpace, MemorySpace, MemoryLimit, ProcessLimit, LogFile, ForeignStdio,
		FileMissing, FileDiffers, KernelOlder, NotShared, PeerBusy, TooLarge,
	}
}
