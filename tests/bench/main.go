// Command bench measures what the memory engine promises: each row of its table runs migrate and its peers in turns, runc's
// checkpoint, copy and restore and runc with CRIU's lazy-pages.
//
// What makes the figures comparable:
//
//   - both move the same workload between the same hosts over the same link, in turns, in one run
//   - a client outside asks the container every millisecond over UDP; its longest silence is the gap
//   - rootfs and bundle are on both hosts beforehand, images go to tmpfs, and runc's copy is a plain sendfile stream,
//     unencrypted and without a round trip, the kindest case for it
//   - a helper process keeps all memory that a run will need touched, and lets go of it right before the run: a virtual
//     machine's first touch of memory costs more than everything measured here
//
// Only ratios of what ran side by side mean anything; absolute figures belong to the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"
)

const reportFile = "bench-report.json"

const defaultRuns = 3

type options struct {
	rows     []string
	runs     int // of each tool in a row; 0: the row's own
	shrink   int // sizes are divided by it
	startups int
	link     string
}

// wants says whether a row, or what is measured once, was asked for.
func (o *options) wants(name string) bool {
	return len(o.rows) == 0 || slices.ContainsFunc(o.rows, func(pattern string) bool {
		matched, _ := path.Match(pattern, name) // parse has tried the pattern
		return matched
	})
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the bench itself, or one of the processes it starts on the lab's hosts: itself again, with a verb.
func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "ask":
			return ask(ctx, args[1:])
		case "send":
			return sendFiles(args[1], args[2])
		case "receive":
			return receiveFiles(args[1], args[2])
		case "dump":
			return dump(ctx, args[1:])
		case "warm":
			return warm()
		case "startup":
			return startup(ctx, args[1:])
		case "sink":
			return sink(args[1:])
		case "source":
			return source(ctx, args[1:])
		}
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	return bench(ctx, o)
}

func parse(args []string) (*options, error) {
	o := &options{}
	names := []string{"ceilings", "startup"}
	for _, r := range rowsOf(1) {
		names = append(names, r.name)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rows := flags.String("rows", "", "rows to run, by commas, * for any letters: "+strings.Join(names, " ")+" (default: all)")
	flags.IntVar(&o.runs, "runs", 0, "runs of each tool in a row (default: 3, 10 of auto)")
	flags.IntVar(&o.shrink, "shrink", 1, "divide sizes by this, to see whether all runs: such figures mean nothing")
	flags.StringVar(&o.link, "link", "tls", "what migrate moves over: tls or unix")
	flags.IntVar(&o.startups, "startups", 50, "runs of a container that ends at once")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	for pattern := range strings.SplitSeq(*rows, ",") {
		if pattern == "" {
			continue
		}
		o.rows = append(o.rows, pattern)
		one := &options{rows: []string{pattern}}
		if _, err := path.Match(pattern, ""); err != nil || !slices.ContainsFunc(names, one.wants) {
			return nil, fmt.Errorf("read --rows: there is no %q; there are %s", pattern, strings.Join(names, " "))
		}
	}
	switch {
	case o.link != "unix" && o.link != "tls":
		return nil, fmt.Errorf("read --link: %q is neither unix nor tls", o.link)
	case o.runs < 0 || o.shrink < 1 || flags.NArg() > 0:
		return nil, errors.New("want flags only, runs and a divisor of at least one")
	}
	return o, nil
}
