package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/livemigrate/migrate/tests/bench/figures"
)

// limit is what a row may be of the better runc's median.
const limit = 1.0

// Rows that are not one command.
const (
	cycleRow  = "create+start+delete"
	memoryRow = "init's private memory"
)

// bound are the rows with a limit; the parts of a cycle are shown to explain its sum.
func bound() []string { return []string{"run", "exec", "state", "list", cycleRow, memoryRow} }

// report is bench-runtime-report.json.
type report struct {
	Runs   int      `json:"runs"`
	Listed int      `json:"containers_listed"`
	Tools  []string `json:"tools"`
	Rows   []*row   `json:"rows"`
}

// row is one verb, by all tools.
type row struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"` // ms or KB
	Cells []*cell `json:"cells"`
	Ratio float64 `json:"ratio"` // of the better runc's median
	Noise float64 `json:"noise"` // ratio of migrate's own two medians
}

type cell struct {
	Tool   string           `json:"tool"`
	Value  figures.Summary  `json:"value"`
	CPU    *figures.Summary `json:"cpu_ms,omitempty"`
	values []float64
	cpu    []float64
}

func newReport(o *options, tools []*tool) *report {
	r := &report{Runs: o.runs, Listed: o.listed}
	for _, t := range tools {
		r.Tools = append(r.Tools, t.name)
	}
	return r
}

// add takes the costs of one run.
func (r *report) add(t *tool, costs []cost) {
	for _, c := range costs {
		cell := r.row(c).cell(t.name)
		if c.kb > 0 {
			cell.values = append(cell.values, c.kb)
		} else {
			cell.values, cell.cpu = append(cell.values, c.wall), append(cell.cpu, c.cpu)
		}
	}
}

func (r *report) row(c cost) *row {
	i := slices.IndexFunc(r.Rows, func(have *row) bool { return have.Name == c.name })
	if i >= 0 {
		return r.Rows[i]
	}
	unit := "ms"
	if c.kb > 0 {
		unit = "KB"
	}
	made := &row{Name: c.name, Unit: unit}
	for _, name := range r.Tools {
		made.Cells = append(made.Cells, &cell{Tool: name})
	}
	r.Rows = append(r.Rows, made)
	return made
}

func (r *row) cell(tool string) *cell {
	return r.Cells[slices.IndexFunc(r.Cells, func(c *cell) bool { return c.Tool == tool })]
}

// sumUp turns values into what is reported.
func (r *report) sumUp() {
	for _, row := range r.Rows {
		for _, c := range row.Cells {
			c.Value = figures.Summarise(c.values)
			if len(c.cpu) > 0 {
				cpu := figures.Summarise(c.cpu)
				c.CPU = &cpu
			}
		}
		mine, better := row.cell(ours).Value.Median, math.Inf(1)
		for _, c := range row.Cells {
			if c.Tool != ours && c.Tool != again {
				better = min(better, c.Value.Median)
			}
		}
		row.Ratio, row.Noise = mine/better, row.cell(again).Value.Median/mine
	}
}

func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\n%d runs each, %d containers listed. min / median / p90, in ms (KB for memory), and the median of user + system time.\n", r.Runs, r.Listed)
	fmt.Fprint(out, "ratio: of the better runc's median. noise: the ratio that migrate's two turns have to each other.\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t%s\tratio\tnoise\n", strings.Join(r.Tools, "\t"))
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s\t", row.Name)
		for _, c := range row.Cells {
			if c.CPU == nil {
				fmt.Fprintf(w, "%.0f / %.0f / %.0f\t", c.Value.Min, c.Value.Median, c.Value.P90)
			} else {
				fmt.Fprintf(w, "%.1f / %.1f / %.1f (%.1f)\t", c.Value.Min, c.Value.Median, c.Value.P90, c.CPU.Median)
			}
		}
		fmt.Fprintf(w, "%.2f\t%.2f\n", row.Ratio, row.Noise)
	}
	w.Flush() // to a buffer of its own first; what fails on out the next line fails on too
	fmt.Fprintf(out, "\nreport: %s\n", reportFile)
}

// verdict names every limit that these figures break.
func (r *report) verdict() error {
	var errs []error
	for _, row := range r.Rows {
		if slices.Contains(bound(), row.Name) && row.Ratio > limit {
			errs = append(errs, fmt.Errorf("%s takes %.3f of the better runc's median, and may take %.1f", row.Name, row.Ratio, limit))
		}
	}
	return errors.Join(errs...)
}
