package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// report is demo-report.json.
type report struct {
	Moves        []moveReport `json:"moves"`
	Replies      int          `json:"replies"`
	LostReplies  int          `json:"lost_replies"`
	OutOfOrder   int          `json:"out_of_order"`
	DigestBefore string       `json:"digest_before"`
	DigestAfter  string       `json:"digest_after"`
}

type moveReport struct {
	From        string  `json:"from"`
	To          string  `json:"to"`
	Peer        string  `json:"peer"`
	Outcome     string  `json:"outcome"`
	ClientGapMS float64 `json:"client_gap_ms"`
	DowntimeMS  float64 `json:"downtime_ms"`
	TotalMS     float64 `json:"total_ms"`
	BytesSent   int64   `json:"bytes_sent"`
}

func newReport(moves []*moved, h *history, before, after string) *report {
	r := &report{
		Replies:      len(h.Replies),
		LostReplies:  h.Sent - len(h.Replies),
		OutOfOrder:   h.OutOfOrder,
		DigestBefore: before,
		DigestAfter:  after,
	}
	for _, m := range moves {
		r.Moves = append(r.Moves, moveReport{
			From: m.from, To: m.to, Peer: m.peer, Outcome: m.result.Outcome,
			ClientGapMS: m.gapMS(h), DowntimeMS: m.result.DowntimeMS, TotalMS: m.result.TotalMS, BytesSent: m.result.BytesSent,
		})
	}
	return r
}

func (r *report) write(path string) error {
	return os.WriteFile(path, encode(r), 0o644)
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d replies over one connection: %d lost, %d out of order.\n", r.Replies, r.LostReplies, r.OutOfOrder)
	same := "the same"
	if r.DigestBefore != r.DigestAfter {
		same = "DIFFERENT"
	}
	fmt.Fprintf(w, "digest of the values before and after: %s (%.16s...). Report: %s\n", same, r.DigestAfter, reportFile)
}

// verdict is nil only when both moves ended on the other host and the client lost nothing.
func (r *report) verdict() error {
	var errs []error
	for _, m := range r.Moves {
		if m.Outcome != "moved" {
			errs = append(errs, fmt.Errorf("%s -> %s: %s", m.From, m.To, m.Outcome))
		}
	}
	if r.Replies == 0 || r.LostReplies != 0 || r.OutOfOrder != 0 {
		errs = append(errs, fmt.Errorf("the client has %d replies, lost %d, and %d are out of order", r.Replies, r.LostReplies, r.OutOfOrder))
	}
	if r.DigestBefore != r.DigestAfter {
		errs = append(errs, errors.New("the values changed on the way"))
	}
	return errors.Join(errs...)
}
