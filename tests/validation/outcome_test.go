package validation

import (
	"fmt"
	"strings"
	"testing"
)

// outcome is what a program of the suite found out about a runtime.
type outcome struct {
	code           int
	passed, failed map[string]int // how often each assertion held and did not
	err            string         // the error of a program that makes no assertions
	stderr         string
}

// parse reads TAP: "ok 1 - words", "not ok 2 - words", and diagnostics in between, of which only "error" counts, and only
// where nothing is asserted: otherwise it belongs to an assertion.
func parse(code int, tap, stderr string) *outcome {
	o := &outcome{code: code, passed: map[string]int{}, failed: map[string]int{}, stderr: stderr}
	for line := range strings.Lines(tap) {
		line = strings.TrimRight(line, "\n")
		_, words, _ := strings.Cut(line, " - ")
		switch {
		case strings.HasPrefix(line, "not ok "):
			o.failed[words]++
		case strings.HasPrefix(line, "ok "):
			o.passed[words]++
		case o.err == "" && strings.HasPrefix(strings.TrimSpace(line), `"error": `):
			o.err = strings.TrimSpace(line)
		}
	}
	if len(o.passed)+len(o.failed) > 0 {
		o.err = ""
	}
	return o
}

// worse names what holds for the other and not for o.
func (o *outcome) worse(other *outcome) []string {
	var list []string
	if o.code != 0 && other.code == 0 {
		list = append(list, fmt.Sprintf("exit code %d: %s", o.code, o.stderr))
	}
	if o.err != "" && other.err == "" {
		list = append(list, o.err)
	}
	for words, times := range other.passed {
		if o.passed[words] < times {
			list = append(list, fmt.Sprintf("%q holds %d times instead of %d", words, o.passed[words], times))
		}
	}
	for words, times := range o.failed {
		if times > other.failed[words] {
			list = append(list, fmt.Sprintf("%q fails %d times instead of %d", words, times, other.failed[words]))
		}
	}
	return list
}

// String is a cell of the table.
func (o *outcome) String() string {
	total := func(m map[string]int) (n int) {
		for _, times := range m {
			n += times
		}
		return n
	}
	switch {
	case o.code != 0:
		return fmt.Sprintf("exit code %d", o.code)
	case o.err != "":
		return "error"
	case len(o.failed) > 0:
		return fmt.Sprintf("%d of %d", total(o.passed), total(o.passed)+total(o.failed))
	}
	return fmt.Sprintf("ok (%d)", total(o.passed))
}

func TestOutcomeIsJudgedByAssertion(t *testing.T) {
	good := parse(0, "TAP version 13\nok 1 - a\nok 2 - a\nnot ok 3 - b\n  ---\n    \"error\": \"x\"\n  ...\n1..3\n", "")
	silent := parse(0, "TAP version 13\n1..0\n", "")
	tests := []struct {
		name    string
		o, than *outcome
		want    int
	}{
		{"the same", good, good, 0},
		{"better", parse(0, "ok 1 - a\nok 2 - a\nok 3 - b\n", ""), good, 0},
		{"one less", parse(0, "ok 1 - a\nnot ok 3 - b\n", ""), good, 1},
		{"another failure", parse(0, "ok 1 - a\nok 2 - a\nnot ok 3 - b\nnot ok 4 - c\n", ""), good, 1},
		{"no success", parse(1, "", "why"), silent, 1},
		{"error without assertions", parse(0, "  ---\n    \"error\": \"x\"\n  ...\n1..0\n", ""), silent, 1},
	}
	for _, tt := range tests {
		if got := tt.o.worse(tt.than); len(got) != tt.want {
			t.Errorf("%s: %q, want %d", tt.name, got, tt.want)
		}
	}
}
