// Command soak makes, starts and deletes containers, many and several at a time, and counts what the machine holds before
// and after. Whatever has grown is a leak, and ends the soak with 1.
//
// Only what is the runtime's is counted, so that others may use the machine meanwhile: processes and cgroups whose names
// hold the soak's own, the mounts of this mount namespace, our open descriptors, the files of the state directory, those of
// the runtime's directory for temporary files, and in /run those with the soak's name.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/livemigrate/migrate/tests/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o := &options{out: os.Stdout}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.IntVar(&o.cycles, "cycles", 1000, "containers to make, start and delete")
	flags.IntVar(&o.atOnce, "at-once", 8, "of them at a time")
	flags.StringVar(&o.migrate, "migrate", filepath.Join(lab.Repo(), "bin", "migrate"), "the program under test")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return soak(ctx, o)
}
