package wire

import (
	"errors"
	"fmt"
	"strings"
)

// Blocker is the severity of a finding that no move survives.
const Blocker = "blocker"

// Blockers are the findings of that severity.
func Blockers(findings []*Finding) []*Finding {
	var some []*Finding
	for _, f := range findings {
		if f.GetSeverity() == Blocker {
			some = append(some, f)
		}
	}
	return some
}

// Line is the finding for people: what it is, which process, and the cure.
func (f *Finding) Line() string {
	text := f.GetText()
	if f.GetPid() != 0 {
		text = fmt.Sprintf("process %d (%s) %s", f.GetPid(), f.GetProcess(), text)
	}
	if f.GetCure() != "" {
		text += ": " + f.GetCure()
	}
	return text
}

// RefusalError is a preflight's no. It crosses hosts with all that was found.
type RefusalError struct {
	Findings []*Finding
	Cause    error // the sentinel that it wraps
}

func (r *RefusalError) Error() string {
	var lines []string
	for _, f := range Blockers(r.Findings) {
		lines = append(lines, f.Line())
	}
	return strings.Join(lines, "; ")
}

func (r *RefusalError) Unwrap() error { return r.Cause }

// FindingsOf are those that an error carries, from this host or from the other.
func FindingsOf(err error) []*Finding {
	if r, ok := errors.AsType[*RefusalError](err); ok {
		return r.Findings
	}
	if r, ok := errors.AsType[*RemoteError](err); ok {
		return r.Findings
	}
	return nil
}

// fit cuts what is too long: a preflight is told as far as it fits.
func fit(findings []*Finding) []*Finding {
	var all []*Finding
	for _, f := range findings[:min(len(findings), MaxFindings)] {
		all = append(all, &Finding{
			Severity: f.GetSeverity(), Code: f.GetCode(), Text: cut(f.GetText(), MaxFinding), Pid: f.GetPid(),
			Process: cut(f.GetProcess(), MaxFinding), Cure: cut(f.GetCure(), MaxFinding),
		})
	}
	return all
}

// cut makes a text fit for the wire, which takes valid UTF-8 only.
func cut(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.ToValidUTF8(text, "?")
}

// SetFindings says what the peer's preflight found besides.
func (o *Offer) SetFindings(findings []*Finding) { o.Findings = fit(findings) }

func checkFindings(findings []*Finding) error {
	if len(findings) > MaxFindings {
		return fmt.Errorf("%d findings, the limit is %d", len(findings), MaxFindings)
	}
	for _, f := range findings {
		if len(f.GetText()) > MaxFinding || len(f.GetCure()) > MaxFinding || len(f.GetProcess()) > MaxFinding {
			return errors.New("the text of a finding is too long")
		}
	}
	return nil
}
