package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// drained is the last line of a push of several.
type drained struct {
	Moved   int     `json:"moved"`
	TotalMS float64 `json:"total_ms"`
	Results []struct {
		Container  string  `json:"container"`
		Outcome    string  `json:"outcome"`
		DowntimeMS float64 `json:"downtime_ms"`
		Error      string  `json:"error"`
	} `json:"results"`
}

// drains empties a host of many containers, and the other one in turn. Every fifth is a redis that somebody talks to.
func (w *world) drains(ctx context.Context) error {
	if _, err := w.A.Run(ctx, "migrate", "delete", "--force", redis); err != nil {
		return err
	}
	var clients []*lab.Client
	for n := range w.containers {
		id, at := "many"+strconv.Itoa(n), fmt.Sprintf("10.77.0.%d", 110+n)
		if n%5 != 0 {
			if err := w.run(ctx, w.A, id, "busybox", at); err != nil {
				return err
			}
			continue
		}
		if err := w.run(ctx, w.A, id, "redis", at); err != nil {
			return err
		}
		client, err := w.Converse(ctx, at+":6379", "INCR counter", ":%d")
		if err != nil {
			return err
		}
		defer client.Close()
		clients = append(clients, client)
	}
	if err := errors.Join(w.drain(ctx, w.A, w.B, "tls"), w.drain(ctx, w.B, w.A, "tls")); err != nil {
		return err
	}
	before, err := w.settled(ctx, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(w.drain(ctx, w.A, w.B, "tls"), w.drain(ctx, w.B, w.A, w.ways[len(w.ways)-1])); err != nil {
		return err
	}
	replies := int64(0)
	for _, client := range clients {
		if err := client.Unharmed(patience); err != nil {
			return err
		}
		replies += client.Answers()
	}
	after, err := w.settled(ctx, before)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.out, "%d replies over %d connections: 0 lost, 0 out of order\n", replies, len(clients))
	return errors.Join(compare(w.out, before, after), spare(w.A), spare(w.B))
}

// drain moves all of a host's containers.
func (w *world) drain(ctx context.Context, from, to *lab.Host, way string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	lines, failed := from.Run(ctx, "migrate", "push", "--json", "--all", "--at-once", strconv.Itoa(w.atOnce), peer(to, way))
	last := lines[strings.LastIndex(strings.TrimSpace(lines), "\n")+1:]
	var d drained
	if err := json.Unmarshal([]byte(last), &d); err != nil {
		return errors.Join(failed, fmt.Errorf("push --all prints %q: %w", last, err))
	}
	var downtimes []float64
	for _, r := range d.Results {
		if r.Outcome != "moved" {
			failed = errors.Join(failed, fmt.Errorf("%s: %s: %s", r.Container, r.Outcome, r.Error))
		}
		downtimes = append(downtimes, r.DowntimeMS)
	}
	if failed != nil || d.Moved != w.containers {
		return errors.Join(fmt.Errorf("%d of %d containers moved to %s", d.Moved, w.containers, to.Name), failed)
	}
	fmt.Fprintf(w.out, "%d containers drained %d at a time over %s in %.1f s: away for %.0f ms each (median; %.0f at most)\n",
		d.Moved, w.atOnce, way, d.TotalMS/1000, median(downtimes), slices.Max(downtimes))
	return nil
}
