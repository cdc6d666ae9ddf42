// Command faults stops a move at each of its steps, lets something bad happen there, and checks what became of the container:
// that never two copies ran, that one does at the end, that its client missed no answer, and that nothing is left behind.
//
// What it finds is a table, steps by faults.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o := &options{out: out}
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.StringVar(&o.modes, "modes", "pre-copy", "modes, by comma: stop-copy, pre-copy, auto, post-copy, hybrid")
	flags.StringVar(&o.steps, "steps", ".", "steps, a regular expression")
	flags.StringVar(&o.faults, "faults", ".", "faults, a regular expression")
	flags.StringVar(&o.cells, "cells", ".", "of those, cells by their step and fault, a regular expression: 'peer.resume peer$|source.dump cut'")
	flags.BoolVar(&o.short, "short", false, "each step once, with one fault after the other")
	flags.StringVar(&o.name, "name", fmt.Sprintf("f%d", os.Getpid()), "of the lab")
	flags.StringVar(&o.programs, "programs", "", "directory of a migrate that was built with the tag failpoint; empty: build it")
	flags.StringVar(&o.doc, "doc", "", "a page with marks, to write what the cells say into its tables")
	flags.BoolVar(&o.keep, "keep", false, "leave the lab of a wrong cell as it is, and end there")
	if err := flags.Parse(args); err != nil {
		return err
	}
	m, err := matrix(ctx, o)
	if m != nil {
		m.print(o.out)
		if o.doc != "" {
			err = errors.Join(err, m.write(o.doc))
		}
	}
	return err
}
