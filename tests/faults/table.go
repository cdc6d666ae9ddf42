package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// print prints the tables for people, and each cell that is wrong.
func (t *table) print(out io.Writer) {
	for _, mode := range t.modes {
		fmt.Fprintf(out, "\n%s\n", mode)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, row := range t.rows(mode) {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		_ = w.Flush()
	}
	counts := make(map[kind]int)
	for _, r := range t.cells {
		counts[r.verdict.kind]++
		if r.verdict.kind == wrong {
			fmt.Fprintf(out, "%s, %s, %s: %s\n", r.mode, r.step.point, r.fault.name, r.verdict.why)
		}
	}
	fmt.Fprintf(out, "%d cells in %.0f s: %d as promised, %d wrong, %d not applicable\n",
		len(t.cells), t.took.Seconds(), counts[fine], counts[wrong], counts[none])
}

// rows are a mode's table, the names first. A cell that was not run is empty.
func (t *table) rows(mode string) [][]string {
	signs := make(map[string]string)
	var columns []fault
	for _, f := range faults {
		used := false
		for _, r := range t.cells {
			if r.mode == mode && r.fault.name == f.name {
				used = true
				signs[string(r.step.point)+" "+f.name] = r.verdict.sign()
			}
		}
		if used {
			columns = append(columns, f)
		}
	}
	head := []string{"step"}
	for _, f := range columns {
		head = append(head, f.name)
	}
	rows := [][]string{head}
	for _, s := range steps {
		row := []string{string(s.point)}
		empty := true
		for _, f := range columns {
			sign := signs[string(s.point)+" "+f.name]
			empty = empty && sign == ""
			row = append(row, sign)
		}
		if !empty {
			rows = append(rows, row)
		}
	}
	return rows
}

// sign is a verdict in a letter or two.
func (v verdict) sign() string {
	switch {
	case v.kind == wrong:
		return "WRONG"
	case v.kind == none:
		return "-"
	case v.at == "":
		return "lost"
	}
	sign := map[string]string{atSource: "S", atPeer: "P"}[v.at]
	return sign + map[string]string{"": "", "resolve": "*", "force": "!"}[v.ended]
}

// write puts each mode's table into the page, between the marks of that mode.
func (t *table) write(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(page)
	for _, mode := range t.modes {
		begin, end := "<!-- faults "+mode+": begin -->\n", "<!-- faults "+mode+": end -->"
		before, rest, ok := strings.Cut(text, begin)
		_, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			return fmt.Errorf("%s has no place for the table of %s: %q and %q", path, mode, begin, end)
		}
		text = before + begin + t.markdown(mode) + end + after
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func (t *table) markdown(mode string) string {
	var b strings.Builder
	for i, row := range t.rows(mode) {
		if i > 0 {
			row[0] = "`" + row[0] + "`"
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	return b.String()
}
