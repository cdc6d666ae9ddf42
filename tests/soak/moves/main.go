// Command moves soaks what moves containers: a redis under load goes back and forth between two hosts, again and again, while
// one client checks every reply that it gets over one connection and another reads back what it has written. Then many
// containers at once are drained there and back. What both hosts hold is counted before and after; whatever has grown, and a
// reply that is lost, wrong or out of order, ends the soak with 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
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
	flags := flag.NewFlagSet("moves", flag.ContinueOnError)
	flags.IntVar(&o.moves, "moves", 100, "of the redis, besides two that nothing is counted in; an even number")
	flags.IntVar(&o.containers, "containers", 20, "to drain")
	flags.IntVar(&o.atOnce, "at-once", 4, "of them")
	modes := flags.String("modes", "auto,pre-copy,stop-copy,post-copy,hybrid", "of the moves, one after the other")
	ways := flags.String("ways", "tls,ssh", "to the peer, one after the other")
	flags.StringVar(&o.lab, "lab", "soak", "name of the lab")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.modes, o.ways = strings.Split(*modes, ","), strings.Split(*ways, ",")
	return soak(ctx, o)
}
