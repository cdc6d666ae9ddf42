package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/livemigrate/migrate/internal/line"
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

// Line is the finding for people: what it is, which process, and the cure. It is fit for a terminal, whatever names are in it.
func (f *Finding) Line() string {
	text := f.GetText()
	if f.GetPid() != 0 {
		text = fmt.Sprintf("process %d (%s) %s", f.GetPid(), f.GetProcess(), text)
	}
	if f.GetCure() != "" {
		text += ": " + f.GetCure()
	}
	return line.Printable(text)
}

// RefusalError is a preflight's no. It crosses hosts with all that was found.
type RefusalError struct {
	Findings []*Finding
	Cause    error // the sentinel that it wraps
}

// mostSaid is how many blockers the text of a refusal has. Findings has them all.
const mostSaid = 8

func (r *RefusalError) Error() string {
	var lines []string
	blockers := Blockers(r.Findings)
	for _, f := range blockers[:min(len(blockers), mostSaid)] {
		lines = append(lines, f.Line())
	}
	if more := len(blockers) - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
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

// SetFindings says what the peer has found when it made the container's place.
func (p *Prepared) SetFindings(findings []*Finding) { p.Findings = fit(findings) }

// SetFindings says what the container lacks at the peer.
func (d *Done) SetFindings(findings []*Finding) { d.Findings = fit(findings) }

func checkFindings(findings []*Finding) error {
	if len(findings) > MaxFindings {
		return fmt.Errorf("%d findings, the limit is %d", len(findings), MaxFindings)
	}
	for _, f := range findings {
		if len(f.GetText()) > MaxFinding || len(f.GetCure()) > MaxFinding || len(f.GetProcess()) > MaxFinding {
			return errors.New("the text of a finding is too long")
		}
		if s := f.GetSeverity(); s != Blocker && s != "warning" && s != "note" {
			return fmt.Errorf("a finding is of the severity %.16q", s)
		}
		if !isCode(f.GetCode()) {
			return fmt.Errorf("a finding has the code %.16q", f.GetCode())
		}
	}
	return nil
}

// isCode tells whether a text is made as the codes of findings are: words of small letters, joined by "-".
func isCode(code string) bool {
	const longest = 64
	return code != "" && len(code) <= longest && strings.Trim(code, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
