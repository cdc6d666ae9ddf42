//go:build !man

// Command migrate is an OCI container runtime that can also move a running container to another host.
//
// One file per verb: its flags, one call into the library, its output and its exit code.
package main

import (
	"os"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/runtime"
)

func main() {
	// The program that becomes a container's process is this one, started again. Nothing else may come before.
	if len(os.Args) > 1 && os.Args[1] == "init" {
		runtime.Init()
	}
	// What the caller has left open, a lock or a pipe that somebody reads to its end, is not for monitors and keepers, which stay. A
	// kernel that can't withhold it runs no container either.
	_ = descriptor.WithholdFrom(3)
	os.Exit(run(os.Args))
}
