package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// bar is one line of a terminal that shows how much of something is done. The packages that draw such bars bring an HTTP
// client along, whose set-up every start of every container would pay for.
type bar struct {
	out   io.Writer
	title string
	drawn time.Time // zero: there is nothing to clear
}

const (
	barWidth = 30
	barRest  = 50 * time.Millisecond // between two pictures
)

// draw shows done of total bytes, total not being zero. What comes too soon after the last picture is left out.
func (b *bar) draw(now time.Time, done, total uint64) {
	if done < total && now.Sub(b.drawn) < barRest {
		return
	}
	b.drawn = now
	done = min(done, total)
	filled := int(float64(done) / float64(total) * barWidth)
	fmt.Fprintf(b.out, "\r%-10s %3.0f%% |%s%s| %.1f of %.1f MB\x1b[K", b.title, float64(done)/float64(total)*100,
		strings.Repeat("█", filled), strings.Repeat(" ", barWidth-filled), float64(done)/1e6, float64(total)/1e6)
}

// clear leaves the line to what comes next.
func (b *bar) clear() {
	if !b.drawn.IsZero() {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}
