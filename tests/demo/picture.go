package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const pictureColumns = 72

// drawLatency draws the slowest reply of each column's time, from half a second before the move to half a second after it.
// Rows are latencies, about a factor of three apart.
func drawLatency(w io.Writer, h *history, began, ended time.Time) {
	from := began.Add(-500 * time.Millisecond).UnixNano()
	span := ended.Add(500*time.Millisecond).UnixNano() - from
	var slowest [pictureColumns]int64
	for _, r := range h.Replies {
		if column := (r.Sent - from) * pictureColumns / span; r.Sent >= from && column < pictureColumns {
			slowest[column] = max(slowest[column], r.Received-r.Sent)
		}
	}
	fmt.Fprintf(w, "   latency of the replies to what was sent then (one column: %d ms; ^ the push begins and ends)\n", span/pictureColumns/1e6)
	for _, row := range []time.Duration{3e9, 1e9, 300e6, 100e6, 30e6, 10e6, 3e6, 1e6, 0} {
		var line strings.Builder
		for _, ns := range slowest {
			switch {
			case ns == 0 || ns < int64(row):
				line.WriteByte(' ')
			default:
				line.WriteByte('#')
			}
		}
		text := strings.TrimRight(line.String(), " ")
		if text == "" {
			continue // nothing was as slow
		}
		fmt.Fprintf(w, "  %6s |%s\n", label(row), text)
	}
	axis := []byte(strings.Repeat("-", pictureColumns))
	axis[column(began, from, span)], axis[column(ended, from, span)] = '^', '^'
	fmt.Fprintf(w, "         +%s\n", axis)
}

func column(at time.Time, from, span int64) int64 {
	return min((at.UnixNano()-from)*pictureColumns/span, pictureColumns-1)
}

func label(d time.Duration) string {
	if d == 0 {
		return "<1ms"
	}
	return d.String()
}
