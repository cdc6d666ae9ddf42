package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/livemigrate/migrate"
)

// progress shows a move to a person: a bar on a terminal, a line per phase elsewhere.
type progress struct {
	out      io.Writer
	terminal bool
	bar      *bar // nil between the phases
	phase    migrate.Phase
}

func newProgress(out io.Writer, terminal bool) *progress {
	return &progress{out: out, terminal: terminal}
}

// Event shows one event.
func (p *progress) Event(e migrate.Event) {
	switch e.Event {
	case "phase":
		p.endBar()
		p.phase = e.Phase
		if p.terminal {
			p.bar = &bar{out: p.out, title: string(e.Phase)}
			return
		}
		fmt.Fprintf(p.out, "%s %s\n", e.At.Format(time.TimeOnly+".000"), e.Phase)
	case "progress":
		if p.bar != nil && e.Total > 0 {
			p.bar.draw(e.At, e.Bytes, e.Total)
		}
	case "round":
		p.endBar()
		p.round(e.Round)
		if p.terminal && !e.Round.Frozen { // the phase goes on
			p.bar = &bar{out: p.out, title: string(p.phase)}
		}
	case "slow":
		p.endBar()
		fmt.Fprintf(p.out, "  slowed down: it keeps %d %% of its processor time until it stops\n", e.CPU)
		if p.terminal {
			p.bar = &bar{out: p.out, title: string(p.phase)}
		}
	case "warning":
		p.endBar()
		fmt.Fprintf(p.out, "warning: %s\n", e.Text)
	case "result":
		p.endBar()
		p.summary(e.Result)
	}
}

func (p *progress) round(r *migrate.Round) {
	rest := ""
	if r.PredictedMS > 0 {
		rest = fmt.Sprintf(", a stop now: %.0f ms", r.PredictedMS)
	}
	fmt.Fprintf(p.out, "  round %d: %.1f MB in %.0f ms%s\n", r.Number, float64(r.Bytes)/1e6, r.MS, rest)
}

func (p *progress) endBar() {
	if p.bar != nil {
		p.bar.clear()
		p.bar = nil
	}
}

func (p *progress) summary(r *migrate.Result) {
	switch r.Outcome {
	case migrate.Moved:
		predicted := ""
		if r.Prediction != nil {
			predicted = fmt.Sprintf(" (%.0f ms predicted)", r.Prediction.DowntimeMS)
		}
		fmt.Fprintf(p.out, "%s moved from %s to %s: away for %.0f ms%s, %.1f s in all, %.1f MB sent\n",
			r.Container, r.Source, r.Destination, r.DowntimeMS, predicted, r.TotalMS/1000, float64(r.BytesSent)/1e6)
	case migrate.Kept:
		fmt.Fprintf(p.out, "%s was not moved: it is left to run on here\n", r.Container)
	case migrate.Refused:
		fmt.Fprintf(p.out, "%s can't be moved there; nothing was touched\n", r.Container)
	case migrate.Unknown:
		fmt.Fprintf(p.out, "%s is frozen here until its move is brought to an end: run \"migrate resolve %s\"\n", r.Container, r.Container)
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
