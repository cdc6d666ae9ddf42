// Package handshake is what the starter of a container's process and that process say to each other once the process
// exists: the configuration, sent over the bootstrap socket, and small messages over a second channel.
//
//	starter                        init
//	  Config           ->                      over the bootstrap socket
//	                   <-  mount               for each mount whose source only the starter can open,
//	  mount + file     ->
//	                   <-  mount + file        or whose ids only it can map
//	  mount            ->
//	                   <-  hooks               mounts are there, the root not yet entered
//	  continue         ->
//	                   <-  ready               all is set up but credentials and seccomp
//	  continue         ->
//	                   <-  seccomp             the number of the listener's descriptor in init
//	  continue         ->
//	                   <-  error | (closed)    closed: init waits on the exec fifo, or has executed
package handshake

import "github.com/opencontainers/runtime-spec/specs-go"

// Kind says which process is made.
type Kind string

// A container's first process makes the root; a later one joins it.
const (
	Init Kind = "init"
	Exec Kind = "exec"
)

// Config is all that the process is told.
type Config struct {
	Kind    Kind
	Spec    *specs.Spec    // the container's; Linux is never nil
	Process *specs.Process // the process's own; for Init it is Spec.Process
	Rootfs  string         // absolute
	Bundle  string         // absolute; relative sources of bind mounts start here
	ID      string         // names the session keyring

	NoPivot        bool
	NoNewKeyring   bool
	Rootless       bool // the starter is not root
	UserNS         bool // the process is in a user namespace of the container
	NoSeccompFlags bool // see seccomp.Compile
	LoopbackUp     bool // the network namespace is new: bring lo up
	CgroupPath2    string

	State       *specs.State // on stdin of the hooks that run inside
	PassedFiles int          // descriptors 3 to 3+PassedFiles-1 are the program's

	// Numbers of descriptors in the process; 0 = none.
	SyncFD, LogFD, FifoFD, ConsoleFD, PidfdFD int
	Debug                                     bool
}
