// Command bench times a move by migrate against the same container moved by runc: checkpoint, copy, restore.
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
	"strconv"
	"strings"
	"syscall"
)

const reportFile = "bench-report.json"

type options struct {
	sizes    []int // MB
	runs     int
	rate     int // pages a second
	startups int
	links    []string
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
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	sizes := flags.String("sizes", "64,512,2048", "memory of the container, in MB")
	links := flags.String("links", "unix,tls", "what migrate moves over")
	flags.IntVar(&o.runs, "runs", 3, "runs of each cell")
	flags.IntVar(&o.rate, "rate", 0, "random pages the container rewrites a second")
	flags.IntVar(&o.startups, "startups", 50, "runs of a container that ends at once; 0: none")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	for size := range strings.SplitSeq(*sizes, ",") {
		mb, err := strconv.Atoi(size)
		if err != nil || mb < 1 {
			return nil, fmt.Errorf("read --sizes: %q is no number of megabytes", size)
		}
		o.sizes = append(o.sizes, mb)
	}
	o.links = strings.Split(*links, ",")
	for _, link := range o.links {
		if link != "unix" && link != "tls" {
			return nil, fmt.Errorf("read --links: %q is neither unix nor tls", link)
		}
	}
	if o.runs < 1 {
		return nil, errors.New("read --runs: at least one")
	}
	return o, nil
}
