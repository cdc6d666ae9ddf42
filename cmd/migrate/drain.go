package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate"
)

// drainFlags are those of a push of several containers.
func drainFlags(cmd *cobra.Command, o *migrate.DrainOptions) {
	flags := cmd.Flags()
	flags.BoolVar(&o.All, "all", false, "move every running container, the largest first")
	flags.IntVar(&o.AtOnce, "at-once", migrate.DefaultAtOnce, "of several containers, move so many at a time")
	flags.BoolVar(&o.FailFast, "fail-fast", false, "of several, begin none any more after one that was not moved")
	flags.BoolVar(&o.SkipRefused, "skip-refused", false, "of several, leave those here that can't be moved, instead of all")
}

// checkDrain finds what is wrong with the command line of several containers.
func checkDrain(args []string, o *migrate.DrainOptions) error {
	switch {
	case o.All && len(args) != 1:
		return fmt.Errorf("push --all takes one argument, the peer, not %d", len(args))
	case !o.All && len(args) < 2:
		return errors.New("push takes a container, or more, and a peer")
	case o.AtOnce < 1:
		return fmt.Errorf("--at-once %d: want at least 1", o.AtOnce)
	}
	seen := make(map[string]bool)
	for _, id := range args[:len(args)-1] {
		if seen[id] {
			return fmt.Errorf("%s is named twice", id)
		}
		seen[id] = true
	}
	return nil
}

// drain moves several containers and tells how each ended.
func drain(cmd *cobra.Command, ids []string, peer, story string, asJSON bool, o *migrate.DrainOptions) error {
	out := cmd.OutOrStdout()
	if asJSON {
		lines := json.NewEncoder(out)
		o.Push.Event = func(e migrate.Event) { _ = lines.Encode(e) } // a reader that went away must not end the moves
	} else {
		show := newBoard(os.Stderr, width(os.Stderr))
		o.Push.Event = show.Event
	}
	drained, err := migrate.Drain(cmd.Context(), ids, peer, o)
	if err != nil {
		return err
	}
	if story != "" {
		if err := writeStory(story, drained); err != nil { // the moves have ended as they have
			fmt.Fprintln(os.Stderr, "warning:", err)
		}
	}
	if asJSON {
		err = json.NewEncoder(out).Encode(struct {
			Event string `json:"event"`
			*migrate.Drained
		}{"summary", drained})
	} else {
		err = printDrained(out, drained)
	}
	if code := drained.ExitCode(); code != 0 {
		return exit(code)
	}
	return err
}

// printDrained is a line for each container, what is to be known of those that were not moved, and the sum.
func printDrained(out io.Writer, d *migrate.Drained) error {
	w := tabwriter.NewWriter(out, 0, 1, 2, ' ', 0)
	if len(d.Results) > 0 {
		fmt.Fprint(w, "ID\tOUTCOME\tMODE\tDOWNTIME\tTOTAL\tSENT\n")
	}
	for _, r := range d.Results {
		downtime, total, sent := "-", "-", "-"
		if r.Outcome == migrate.Moved || r.DowntimeMS > 0 {
			downtime = fmt.Sprintf("%.0f ms", r.DowntimeMS)
		}
		if r.TotalMS > 0 {
			total, sent = fmt.Sprintf("%.1f s", r.TotalMS/1000), fmt.Sprintf("%.1f MB", float64(r.BytesSent)/1e6)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Container, r.Outcome, cmp.Or(r.Mode, "-"), downtime, total, sent)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range d.Results {
		switch {
		case r.Outcome == migrate.Unknown:
			fmt.Fprintf(out, "%s: %s: frozen here until \"migrate resolve %s\"\n", r.Container, r.Error, r.Container)
		case r.Error != "":
			fmt.Fprintf(out, "%s: %s\n", r.Container, r.Error)
		}
	}
	for _, l := range d.Left {
		fmt.Fprintf(out, "%s: left here, it is %s\n", l.ID, l.Status)
	}
	var counts []string
	for _, c := range []struct {
		n    int
		what migrate.Outcome
	}{{d.Kept, migrate.Kept}, {d.Refused, migrate.Refused}, {d.Unknown, migrate.Unknown}, {d.Skipped, migrate.Skipped}} {
		if c.n > 0 {
			counts = append(counts, fmt.Sprintf(", %d %s", c.n, c.what))
		}
	}
	_, err := fmt.Fprintf(out, "%d of %d moved%s, in %.1f s\n", d.Moved, len(d.Results), strings.Join(counts, ""), d.TotalMS/1000)
	return err
}
