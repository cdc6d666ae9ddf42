package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/livemigrate/migrate"
)

// board shows several moves at a time: a line for each on a terminal, below what is told of those that have ended; elsewhere
// lines that begin with the container.
type board struct {
	out   io.Writer
	width int // of the terminal; 0: there is none
	moves []*moving
	shown int // lines that are on the terminal now
	drawn time.Time
}

// moving is one line.
type moving struct {
	id    string
	phase migrate.Phase
	done  uint64 // bytes
	total uint64
}

func newBoard(out io.Writer, width int) *board { return &board{out: out, width: width} }

// width is that of a terminal, or 0.
func width(f *os.File) int {
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return max(columns, 20)
}

// Event shows one event.
func (b *board) Event(e migrate.Event) {
	switch e.Event {
	case "phase":
		m := b.of(e.ID)
		m.phase, m.done, m.total = e.Phase, 0, 0
		if b.width == 0 {
			fmt.Fprintf(b.out, "%s %s: %s\n", e.At.Format(time.TimeOnly+".000"), e.ID, e.Phase)
		}
		b.draw(e.At)
	case "progress":
		m := b.of(e.ID)
		m.done, m.total = e.Bytes, e.Total
		b.draw(time.Now())
	case "slow":
		b.say("%s: slowed down: it keeps %d %% of its processor time until it stops", e.ID, e.CPU)
	case "warning":
		b.say("%s: warning: %s", e.ID, e.Text)
	case "result":
		b.moves = slices.DeleteFunc(b.moves, func(m *moving) bool { return m.id == e.ID })
		if e.Outcome == migrate.Moved {
			b.say("%s: moved to %s: away for %.0f ms, %.1f s in all, %.1f MB sent", e.ID, e.Destination, e.DowntimeMS, e.TotalMS/1000, float64(e.BytesSent)/1e6)
		} else {
			b.say("%s: %s: %s", e.ID, e.Outcome, e.Error)
		}
	}
}

// of is the line of a container, a new one at the end when it has none.
func (b *board) of(id string) *moving {
	for _, m := range b.moves {
		if m.id == id {
			return m
		}
	}
	m := &moving{id: id}
	b.moves = append(b.moves, m)
	return m
}

// say tells something that stays, above the lines of moves.
func (b *board) say(format string, args ...any) {
	b.clear()
	fmt.Fprintf(b.out, format+"\n", args...)
	b.drawn = time.Time{}
	b.draw(time.Now())
}

func (b *board) clear() {
	if b.shown > 0 {
		fmt.Fprintf(b.out, "\x1b[%dA\r\x1b[J", b.shown)
		b.shown = 0
	}
}

// draw shows the lines anew. What comes too soon after the last picture is left out.
func (b *board) draw(now time.Time) {
	if b.width == 0 || now.Sub(b.drawn) < barRest {
		return
	}
	b.drawn = now
	var picture strings.Builder
	for _, m := range b.moves {
		picture.WriteString(m.line(b.width - 1)) // a full line would wrap
		picture.WriteString("\n")
	}
	b.clear()
	b.shown = len(b.moves)
	fmt.Fprint(b.out, picture.String())
}

// line is at most so many columns wide.
func (m *moving) line(columns int) string {
	text := fmt.Sprintf("%-16s %-10s", m.id, m.phase)
	if m.total > 0 {
		done := min(m.done, m.total)
		text += fmt.Sprintf("%3.0f%%  %.1f of %.1f MB", float64(done)/float64(m.total)*100, float64(done)/1e6, float64(m.total)/1e6)
	}
	return text[:min(len(text), columns)]
}
