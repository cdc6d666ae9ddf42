package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/internal/report"
)

type (
	// Severity is how much a finding matters.
	Severity = report.Severity
	// Finding is one thing that stands against a move, or is worth knowing before it.
	Finding = report.Finding
)

// The severities.
const (
	Blocker = report.Blocker // the move would fail
	Warning = report.Warning // it may fail, or cost more than it should
	Note    = report.Note    // good to know
)

func rank(s Severity) int { return slices.Index([]Severity{Blocker, Warning, Note}, s) }

// Findings are what a look found.
type Findings []Finding

func (f *Findings) add(severity Severity, code Code, cure, format string, args ...any) {
	*f = append(*f, Finding{Severity: severity, Code: string(code), Text: fmt.Sprintf(format, args...), Cure: cure})
}

// On marks them as found on a host.
func (f Findings) On(host string) Findings {
	for i := range f {
		f[i].Host = host
	}
	return f
}

// Sort puts what matters most first.
func (f Findings) Sort() Findings {
	slices.SortStableFunc(f, func(a, b Finding) int {
		return cmp.Or(rank(a.Severity)-rank(b.Severity), strings.Compare(a.Code, b.Code))
	})
	return f
}

// Of are those of a severity.
func (f Findings) Of(s Severity) Findings {
	var some Findings
	for _, finding := range f {
		if finding.Severity == s {
			some = append(some, finding)
		}
	}
	return some
}

// Blocked tells whether a move would fail.
func (f Findings) Blocked() bool { return len(f.Of(Blocker)) > 0 }
