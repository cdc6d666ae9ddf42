//go:build !man

// Command migrate is an OCI container runtime that can also move a running container to another host.
//
// One file per verb: its flags, one call into the library, its output and its exit code.
package main

import (
	"os"

	"github.com/livemigrate/migrate/runtime"
)

func main() {
	// The program that becomes a container's process is this one, started again. Nothing else may come before.
	if len(os.Args) > 1 && os.Args[1] == "init" {
		runtime.Init()
	}
	os.Exit(run(os.Args))
}
