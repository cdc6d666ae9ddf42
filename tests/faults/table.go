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
		for _, row := range t.of(mode).rows() {
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

// signs are what is known of a mode's cells, by step and fault.
type signs map[string]map[string]string

func (s signs) set(step, fault, sign string) {
	if s[step] == nil {
		s[step] = make(map[string]string)
	}
	s[step][fault] = sign
}

// of are those of the cells that were run.
func (t *table) of(mode string) signs {
	s := make(signs)
	for _, r := range t.cells {
		if r.mode == mode {
			s.set(string(r.step.point), r.fault.name, r.verdict.sign())
		}
	}
	return s
}

// rows are a table, the names first, in the order of steps and faults. Of a cell that was not run nothing is known.
func (s signs) rows() [][]string {
	head := []string{"step"}
	for _, f := range faults {
		for _, row := range s {
			if row[f.name] != "" {
				head = append(head, f.name)
				break
			}
		}
	}
	rows := [][]string{head}
	for _, step := range steps {
		known := s[string(step.point)]
		if known == nil {
			continue
		}
		row := []string{string(step.point)}
		for _, fault := range head[1:] {
			row = append(row, known[fault])
		}
		rows = append(rows, row)
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

// write puts each mode's cells into the page, between the marks of that mode. Cells that were not run stay as they are.
func (t *table) write(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(page)
	for _, mode := range t.modes {
		begin, end := "<!-- faults "+mode+": begin -->\n", "<!-- faults "+mode+": end -->"
		before, rest, ok := strings.Cut(text, begin)
		table, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			return fmt.Errorf("%s has no place for the table of %s: %q and %q", path, mode, begin, end)
		}
		known := parse(table)
		for step, row := range t.of(mode) {
			for fault, sign := range row {
				known.set(step, fault, sign)
			}
		}
		text = before + begin + known.markdown() + end + after
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// parse reads what markdown has written.
func parse(table string) signs {
	s := make(signs)
	var head []string
	for line := range strings.Lines(table) {
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range row {
			row[i] = strings.Trim(row[i], " `")
		}
		switch {
		case head == nil:
			head = row
		case len(row) == len(head) && !strings.HasPrefix(row[0], "--"):
			for i, fault := range head[1:] {
				s.set(row[0], fault, row[i+1])
			}
		}
	}
	return s
}

func (s signs) markdown() string {
	var b strings.Builder
	for i, row := range s.rows() {
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
