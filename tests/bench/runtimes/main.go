// Command runtimes times what engines ask of a runtime all day: migrate, Debian's runc and the newest runc, side by side.
//
// What makes the figures comparable:
//
//   - every round runs each of them once, in an order drawn anew, with the same bundle and its state on tmpfs
//   - migrate takes part twice: how far its two medians are apart is what the machine adds to any ratio
//   - the processor time of a command and of the children it waited for stands beside the time it took: it is the
//     steadier of the two where others use the machine
//
// A verb that takes longer than the faster runc's median, or an init that holds more private memory than either runc's,
// ends the bench with 1. Only ratios mean anything; absolute figures belong to the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/livemigrate/migrate/tests/bench/figures"
	"github.com/livemigrate/migrate/tests/lab"
)

const reportFile = "bench-runtime-report.json"

type options struct {
	runs    int
	listed  int
	migrate string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench-runtime:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o := &options{}
	flags := flag.NewFlagSet("bench-runtime", flag.ContinueOnError)
	flags.IntVar(&o.runs, "runs", 100, "rounds of each verb")
	flags.IntVar(&o.listed, "listed", 100, "containers that list lists")
	flags.StringVar(&o.migrate, "migrate", filepath.Join(lab.Repo(), "bin", "migrate"), "the program under test")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.runs < 1 || o.listed < 1 {
		return errors.New("read flags: --runs and --listed are at least 1")
	}
	results, err := bench(ctx, o)
	if err != nil {
		return err
	}
	if err := figures.WriteReport(reportFile, results); err != nil {
		return err
	}
	results.print(os.Stdout)
	return results.verdict()
}
