// Command migrate is an OCI container runtime that can also move a running container to another host.
//
// One file per verb: its flags, one call into the library, its output and its exit code.
package main

import "os"

func main() {
	os.Exit(run(os.Args))
}
