// Command fuzz runs every fuzz function of the module for a while, one after the other, and ends with a table: how often each was
// called, how many inputs took a new way through the code, and which of them it did not survive. Any of those fails the run; the
// input is then in the package's testdata/fuzz, where it stays as a test.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"text/tabwriter"
	"time"
)

func main() {
	every := flag.Duration("time", 20*time.Second, "how long each function runs")
	only := flag.String("only", "", "run those whose package and name, as in internal/wire.FuzzDecode, match this regular expression")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *every, *only); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, every time.Duration, only string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	targets, err := find(".")
	if err != nil {
		return err
	}
	binaries, err := os.MkdirTemp("", "fuzz-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(binaries) }()
	b := &builder{dir: binaries, built: map[string]string{}}
	var all []outcome
	failed := 0
	for _, t := range targets {
		if !wanted.MatchString(t.pkg + "." + t.name) {
			continue
		}
		o := t.fuzz(ctx, b, every)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if o.failed() {
			failed++
		}
		all = append(all, o)
	}
	if len(all) == 0 {
		return fmt.Errorf("no fuzz function matches %q", only)
	}
	if err := table(os.Stdout, all); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d functions failed", failed, len(all))
	}
	return nil
}

func table(out io.Writer, all []outcome) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nfunction\tpackage\texecutions\tnew interesting\tcrashers\n")
	var execs int64
	crashers := 0
	for i := range all {
		o := &all[i]
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\n", o.name, o.pkg, o.execs, o.fresh, o.crashers())
		execs += o.execs
		crashers += len(o.inputs)
	}
	fmt.Fprintf(w, "%d functions\t\t%d\t\t%d\n", len(all), execs, crashers)
	return w.Flush()
}
