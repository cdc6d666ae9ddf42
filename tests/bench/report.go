package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/tests/bench/figures"
)

// startupRatio is what a run of a container that ends at once may take of runc's time.
const startupRatio = 1.2

// report is bench-report.json.
type report struct {
	Link     string         `json:"link"`   // what migrate moved over
	Shrink   int            `json:"shrink"` // what sizes were divided by
	Ceilings []ceiling      `json:"ceilings,omitempty"`
	Startup  *startupResult `json:"startup,omitempty"`
	Rows     []*rowResult   `json:"rows"`
}

// rowResult is a row that was run.
type rowResult struct {
	Name     string               `json:"name"`
	Title    string               `json:"title"`
	Absent   string               `json:"absent,omitempty"`
	Samples  map[string][]*sample `json:"samples"` // by contender
	Failures []string             `json:"failures,omitempty"`

	row *row
}

func (r *report) print(w io.Writer) {
	if len(r.Ceilings) > 0 {
		fmt.Fprintln(w, "\nlink ceilings, MB/s (a loop that writes 1 MB blocks; median of 3)")
	}
	for _, c := range r.Ceilings {
		fmt.Fprintf(w, "  %-5s %d stream(s)  %6.0f\n", c.Link, c.Streams, c.MBps)
	}
	if s := r.Startup; s != nil {
		fmt.Fprintf(w, "\nrun of `true`, ms, %d runs each: migrate %.1f / %.1f / %.1f, runc %.1f / %.1f / %.1f: %.2f of runc's\n",
			s.Runs, s.Migrate.Min, s.Migrate.Median, s.Migrate.Max, s.Runc.Min, s.Runc.Median, s.Runc.Max, s.Ratio)
	}
	if len(r.Rows) > 0 {
		fmt.Fprintf(w, "\nmin / median / max of the runs; migrate moves over %s, its peers over plain TCP\n", r.Link)
	}
	if r.Shrink > 1 {
		fmt.Fprintf(w, "sizes are divided by %d: this shows what runs, and not how fast\n", r.Shrink)
	}
	for _, row := range r.Rows {
		row.print(w)
	}
	r.printMemory(w)
	fmt.Fprintf(w, "report: %s\n", reportFile)
}

// print is the row's title, its figures by contender, and how each promise stands.
func (r *rowResult) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s (%s)\n", r.Title, r.Name)
	if r.Absent != "" {
		fmt.Fprintf(w, "  not run: %s\n", r.Absent)
		return
	}
	for _, figure := range r.row.figures() {
		for _, c := range r.row.contenders {
			if all := values(r.Samples[c.name], figure.figure); len(all) > 0 {
				s := figures.Summarise(all)
				n := decimals(s.Median)
				fmt.Fprintf(w, "  %-24s %-14s %9.*f / %.*f / %.*f %s\n", c.name, figure.figure, n, s.Min, n, s.Median, n, s.Max, figure.unit)
			}
		}
	}
	missed := ""
	for _, l := range r.row.limits {
		got, kept := l.measured(r.Samples)
		verdict := "kept"
		if !kept {
			verdict, missed = "MISSED", l.figure
		}
		fmt.Fprintf(w, "  %-6s %s: %s\n", verdict, l.words(), number(got))
	}
	if line := r.timelines(missed); line != "" {
		fmt.Fprint(w, line)
	}
	for _, failure := range r.Failures {
		fmt.Fprintf(w, "  FAILED %s\n", failure)
	}
}

// figures are those that the row's promises are about, each once.
func (r *row) figures() []limit {
	var all []limit
	for _, l := range r.limits {
		if !slices.ContainsFunc(all, func(o limit) bool { return o.figure == l.figure }) {
			all = append(all, l)
		}
	}
	return all
}

// words are the promise.
func (l *limit) words() string {
	switch {
	case l.share > 0:
		return fmt.Sprintf("%s within %s in %.2f of the runs", l.figure, l.bound(), l.share)
	case l.of != "":
		return fmt.Sprintf("%s at most %.3g of %s", l.figure, l.most, l.of)
	default:
		return fmt.Sprintf("%s at most %s", l.figure, l.bound())
	}
}

func (l *limit) bound() string {
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", decimals(l.most), l.most, l.unit))
}

func number(v float64) string {
	if math.IsNaN(v) {
		return "no figures"
	}
	return fmt.Sprintf("%.3g", v)
}

// timelines say where the time went when a promise was missed, in ours and beside it in the others'.
func (r *rowResult) timelines(missed string) string {
	if missed == "" {
		return ""
	}
	var lines string
	for _, c := range r.row.contenders {
		if s := typical(r.Samples[c.name], missed); s != nil && s.timeline() != "" {
			lines += fmt.Sprintf("  %-24s ms: %s\n", c.name, s.timeline())
		}
	}
	return lines
}

// printMemory is the highest RssAnon of each of our processes over all runs.
func (r *report) printMemory(w io.Writer) {
	peaks := map[string]float64{}
	for _, row := range r.Rows {
		for _, s := range row.Samples[ours] {
			for verb, mb := range s.RSS {
				peaks[verb] = max(peaks[verb], mb)
			}
		}
	}
	if len(peaks) == 0 {
		return
	}
	fmt.Fprint(w, "\nprivate memory at its peak over all rows (RssAnon), MB:")
	for _, verb := range slices.Sorted(maps.Keys(peaks)) {
		fmt.Fprintf(w, " %s %.0f", verb, peaks[verb])
	}
	fmt.Fprintln(w)
}

// verdict names every promise that these figures break. A row that cannot be run promises nothing yet.
func (r *report) verdict() error {
	var errs []error
	for _, row := range r.Rows {
		if row.Absent != "" {
			continue
		}
		for _, l := range row.row.limits {
			if got, kept := l.measured(row.Samples); !kept {
				errs = append(errs, fmt.Errorf("%s: %s, is %s", row.Name, l.words(), number(got)))
			}
		}
		if len(row.Failures) > 0 {
			errs = append(errs, fmt.Errorf("%s: %d runs failed", row.Name, len(row.Failures)))
		}
	}
	if r.Startup != nil && r.Startup.Ratio > startupRatio {
		errs = append(errs, fmt.Errorf("a run of true takes %.2f of runc's time, and may take %.2f", r.Startup.Ratio, startupRatio))
	}
	return errors.Join(errs...)
}
