package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// moved is one move: what push said of it, and when it was.
type moved struct {
	from, to, peer string
	began, ended   time.Time
	result         pushResult
}

// pushResult is the last line of `migrate push --json`.
type pushResult struct {
	Event      string             `json:"event"`
	Outcome    string             `json:"outcome"`
	DowntimeMS float64            `json:"downtime_ms"`
	TotalMS    float64            `json:"total_ms"`
	BytesSent  int64              `json:"bytes_sent"`
	Phases     map[string]float64 `json:"phases"`
	Error      string             `json:"error"`
}

// move pushes the container from one host to the other.
func move(ctx context.Context, from, to *lab.Host, peer string) (*moved, error) {
	scheme, _, _ := strings.Cut(peer, "://")
	say("%s -> %s over %s", letter(from), letter(to), scheme)
	m := &moved{from: letter(from), to: letter(to), peer: peer, began: time.Now()}
	cmd := from.Command(ctx, "migrate", "push", "--json", "web", peer)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var event pushResult
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.Event == "result" {
			m.result = event
		}
	}
	err = cmd.Wait()
	m.ended = time.Now()
	if err != nil {
		return nil, fmt.Errorf("push to %s: %w: %s", peer, err, m.result.Error)
	}
	return m, nil
}

func letter(h *lab.Host) string { return h.Name[len(h.Name)-1:] }

// phaseOrder is the order of the handover; what is missing took no time of its own.
var phaseOrder = []string{"preflight", "rootfs", "precopy", "freeze", "dump", "transfer", "restore", "resume"}

func (m *moved) print(w io.Writer, h *history) {
	fmt.Fprintf(w, "\n%s -> %s (%s): %s. The client waited %.0f ms, the source was frozen %.0f ms, the move took %.0f ms, %.1f MB were sent.\n",
		m.from, m.to, m.peer, m.result.Outcome, m.gapMS(h), m.result.DowntimeMS, m.result.TotalMS, float64(m.result.BytesSent)/1e6)
	fmt.Fprint(w, "   phases in ms: ")
	for i, phase := range phaseOrder {
		if i > 0 {
			fmt.Fprint(w, ", ")
		}
		fmt.Fprintf(w, "%s %.0f", phase, m.result.Phases[phase])
	}
	fmt.Fprintln(w)
	drawLatency(w, h, m.began, m.ended)
}

// gapMS is the longest silence between two replies while the move ran, and a second beyond.
func (m *moved) gapMS(h *history) float64 {
	var gap int64
	for i := 1; i < len(h.Replies); i++ {
		before, after := h.Replies[i-1].Received, h.Replies[i].Received
		if after >= m.began.UnixNano() && before <= m.ended.Add(time.Second).UnixNano() {
			gap = max(gap, after-before)
		}
	}
	return float64(gap) / 1e6
}
