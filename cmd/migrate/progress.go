package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/livemigrate/migrate"
)

// progress shows a move to a person: a bar on a terminal, a line per phase elsewhere.
type progress struct {
	out      io.Writer
	terminal bool
	bar      *progressbar.ProgressBar
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
			p.bar = newBar(p.out, string(e.Phase))
			return
		}
		fmt.Fprintf(p.out, "%s %s\n", e.At.Format(time.TimeOnly+".000"), e.Phase)
	case "progress":
		if p.bar != nil && e.Total > 0 {
			p.bar.ChangeMax64(int64(e.Total))
			_ = p.bar.Set64(int64(e.Bytes)) // only a picture
		}
	case "warning":
		p.endBar()
		fmt.Fprintf(p.out, "warning: %s\n", e.Text)
	case "result":
		p.endBar()
		p.summary(e.Result)
	}
}

func newBar(out io.Writer, phase string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSetDescription(fmt.Sprintf("%-10s", phase)),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

func (p *progress) endBar() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}

func (p *progress) summary(r *migrate.Result) {
	switch r.Outcome {
	case migrate.Moved:
		fmt.Fprintf(p.out, "%s moved from %s to %s: away for %.0f ms, %.1f s in all, %.1f MB sent\n",
			r.Container, r.Source, r.Destination, r.DowntimeMS, r.TotalMS/1000, float64(r.BytesSent)/1e6)
	case migrate.Kept:
		fmt.Fprintf(p.out, "%s was not moved: it is left to run on here\n", r.Container)
	case migrate.Refused:
		fmt.Fprintf(p.out, "%s can't be moved there; nothing was touched\n", r.Container)
	case migrate.Unknown:
		fmt.Fprintf(p.out, "%s is frozen here until its move is brought to an end: run \"migrate resolve %s\"\n", r.Container, r.Container)
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
