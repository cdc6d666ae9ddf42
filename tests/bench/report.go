package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/livemigrate/migrate/tests/bench/figures"
)

// What a move may cost: the gap as a part of runc's, by the container's size in MB, and our processes' private memory.
const (
	gapRatioSmall  = 0.6 // 64 MB
	gapRatioLarge  = 1.0 // 2 GB
	largeMB        = 2048
	smallMB        = 64
	rssAnonLimitKB = 64 << 10
	startupRatio   = 1.2
)

// report is bench-report.json.
type report struct {
	Ceilings []ceiling      `json:"ceilings"`
	Startup  *startupResult `json:"startup,omitempty"`
	Cells    []*cell        `json:"cells"`
}

// cell is one tool at one size.
type cell struct {
	Tool string          `json:"tool"`
	MB   int             `json:"mb"`
	Runs []*measuredMove `json:"runs"`
}

func (r *report) add(tool string, mb int, m *measuredMove) {
	c := r.cell(tool, mb)
	if c == nil {
		c = &cell{Tool: tool, MB: mb}
		r.Cells = append(r.Cells, c)
	}
	c.Runs = append(c.Runs, m)
}

func (r *report) cell(tool string, mb int) *cell {
	for _, c := range r.Cells {
		if c.Tool == tool && c.MB == mb {
			return c
		}
	}
	return nil
}

func (c *cell) gap() figures.Summary {
	var gaps []float64
	for _, m := range c.Runs {
		gaps = append(gaps, m.GapMS)
	}
	return figures.Summarise(gaps)
}

func (c *cell) total() figures.Summary {
	var totals []float64
	for _, m := range c.Runs {
		totals = append(totals, m.TotalMS)
	}
	return figures.Summarise(totals)
}

// ratio is the cell's gap as a part of runc's at the same size; 0 for runc itself.
func (r *report) ratio(c *cell) float64 {
	runc := r.cell("runc", c.MB)
	if c.Tool == "runc" || runc == nil {
		return 0
	}
	return c.gap().Median / runc.gap().Median
}

func (r *report) print(w io.Writer) {
	fmt.Fprintln(w, "\nlink ceilings, MB/s (a loop that writes 1 MB blocks; median of 3)")
	for _, c := range r.Ceilings {
		fmt.Fprintf(w, "  %-5s %d stream(s)  %6.0f\n", c.Link, c.Streams, c.MBps)
	}
	fmt.Fprintln(w, "\n  MB    moved by              client gap, ms          total, ms               gap of runc's   MB/s while away")
	fmt.Fprintln(w, "                              min / median / max      min / median / max")
	for _, c := range r.Cells {
		gap, total := c.gap(), c.total()
		name, ratio := "runc + copy + restore", "-"
		if c.Tool != "runc" {
			name, ratio = "migrate push, "+c.Tool, fmt.Sprintf("%.2f", r.ratio(c))
		}
		fmt.Fprintf(w, "%6d  %-21s %6.0f / %6.0f / %6.0f %6.0f / %6.0f / %6.0f   %-15s %6.0f\n", c.MB, name,
			gap.Min, gap.Median, gap.Max, total.Min, total.Median, total.Max, ratio, float64(c.MB)/gap.Median*1000)
	}
	if s := r.Startup; s != nil {
		fmt.Fprintf(w, "\nrun of `true`, ms, %d runs each: migrate %.1f / %.1f / %.1f, runc %.1f / %.1f / %.1f: %.2f of runc's\n",
			s.Runs, s.Migrate.Min, s.Migrate.Median, s.Migrate.Max, s.Runc.Min, s.Runc.Median, s.Runc.Max, s.Ratio)
	}
	peaks := r.peaks()
	fmt.Fprint(w, "private memory at its peak (RssAnon), MB: ")
	for i, verb := range slices.Sorted(maps.Keys(peaks)) {
		if i > 0 {
			fmt.Fprint(w, ", ")
		}
		fmt.Fprintf(w, "%s %.0f", verb, float64(peaks[verb])/1024)
	}
	fmt.Fprintf(w, "\nreport: %s\n", reportFile)
}

// peaks is the highest RssAnon of each of our processes over all runs, in KB.
func (r *report) peaks() map[string]int {
	peaks := map[string]int{}
	for _, c := range r.Cells {
		for _, m := range c.Runs {
			for verb, kb := range m.RSSAnon {
				peaks[verb] = max(peaks[verb], kb)
			}
		}
	}
	return peaks
}

// verdict names every promise that these figures break.
func (r *report) verdict() error {
	var errs []error
	for _, c := range r.Cells {
		limit, bound := map[int]float64{smallMB: gapRatioSmall, largeMB: gapRatioLarge}[c.MB]
		if got := r.ratio(c); bound && got > limit {
			errs = append(errs, fmt.Errorf("%d MB over %s: the gap is %.2f of runc's, and may be %.2f", c.MB, c.Tool, got, limit))
		}
	}
	for verb, kb := range r.peaks() {
		if kb > rssAnonLimitKB {
			errs = append(errs, fmt.Errorf("migrate %s took %d MB of private memory, and may take %d", verb, kb>>10, rssAnonLimitKB>>10))
		}
	}
	if r.Startup != nil && r.Startup.Ratio > startupRatio {
		errs = append(errs, fmt.Errorf("a run of true takes %.2f of runc's time, and may take %.2f", r.Startup.Ratio, startupRatio))
	}
	return errors.Join(errs...)
}
