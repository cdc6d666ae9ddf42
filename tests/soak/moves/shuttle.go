package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

const (
	redis   = "redis"
	address = "10.77.0.100"
)

// figures are what the moves took.
type figures struct {
	downtimes, totals, journals []float64 // ms
	began                       time.Time
}

// shuttle moves redis under load there and back, and counts.
func (w *world) shuttle(ctx context.Context) error {
	if err := w.run(ctx, w.A, redis, "redis", address); err != nil {
		return err
	}
	asking, err := w.Converse(ctx, address+":6379", "INCR counter", ":%d")
	if err != nil {
		return err
	}
	defer asking.Close()
	writing, err := w.load(ctx, address+":6379")
	if err != nil {
		return err
	}
	defer writing.close()
	f := &figures{began: time.Now()}
	// The first ones make what stays: directories, indexes, descriptors of Go's own.
	for n := range 2 {
		if err := w.move(ctx, n, "auto", f, asking); err != nil {
			return err
		}
	}
	before, err := w.settled(ctx, nil)
	if err != nil {
		return err
	}
	*f = figures{began: time.Now()}
	for n := range w.moves {
		if err := w.move(ctx, n, w.modes[n%len(w.modes)], f, asking); err != nil {
			return fmt.Errorf("move %d: %w", n+1, err)
		}
	}
	took := time.Since(f.began)
	if err := writing.unharmed(); err != nil {
		return err
	}
	after, err := w.settled(ctx, before)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.out, "%d moves of redis under load in %.0f s, by %s, modes %s\n", w.moves, took.Seconds(),
		strings.Join(w.ways, " and "), strings.Join(w.modes, ", "))
	fmt.Fprintf(w.out, "%d replies over one connection: 0 lost, 0 out of order; %d writes of another, each read back; the slowest took %v\n",
		asking.Answers(), writing.written(), writing.longest().Round(time.Millisecond))
	w.tell(f)
	return errors.Join(compare(w.out, before, after), spare(w.A), spare(w.B))
}

// move is the n-th, to the other host.
func (w *world) move(ctx context.Context, n int, mode string, f *figures, asking *lab.Client) error {
	from, to := w.A, w.B
	if n%2 == 1 {
		from, to = w.B, w.A
	}
	push, err := from.Push(ctx, "--mode", mode, redis, peer(to, w.ways[n/2%len(w.ways)]))
	if err != nil {
		return err
	}
	defer push.Kill()
	code, err := push.Wait(time.Minute)
	if err != nil {
		return err
	}
	if code != 0 || push.Result.Outcome != "moved" {
		return fmt.Errorf("push exits with %d, outcome %q: %s %s", code, push.Result.Outcome, push.Result.Error, push.Said())
	}
	f.downtimes = append(f.downtimes, push.Result.DowntimeMS)
	f.totals = append(f.totals, push.Result.TotalMS)
	f.journals = append(f.journals, push.Result.JournalMS)
	return asking.Unharmed(patience)
}

// tell prints the figures. Early and late ones stand side by side: what slows down with every move has grown, too.
func (w *world) tell(f *figures) {
	table := tabwriter.NewWriter(w.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "ms\tmedian\tmost\tfirst quarter\tlast quarter\t\n")
	for _, row := range []struct {
		name   string
		format string
		values []float64
	}{{"downtime", "%.0f", f.downtimes}, {"of it, records on disk", "%.1f", f.journals}, {"total", "%.0f", f.totals}} {
		quarter := (len(row.values) + 3) / 4
		fmt.Fprint(table, row.name)
		for _, value := range []float64{
			median(row.values), slices.Max(row.values), median(row.values[:quarter]), median(row.values[len(row.values)-quarter:]),
		} {
			fmt.Fprintf(table, "\t"+row.format, value)
		}
		fmt.Fprintln(table, "\t")
	}
	_ = table.Flush()
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
