package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/livemigrate/migrate"
	"github.com/livemigrate/migrate/tests/bench/figures"
	"github.com/livemigrate/migrate/tests/lab"
)

const migrateAddress = "10.77.0.100"

// migrateMover moves by `migrate push`.
type migrateMover struct {
	*stage
	load  load
	flags []string
}

// unixSocket is a path that both hosts see: they share the machine's files outside /srv, /run and /var/lib/migrate.
func unixSocket(l *lab.Lab) string { return "/var/lib/migrate-lab/" + l.Name + "/peer.sock" }

// prepareMigrate starts the peer's side, once for each link.
func prepareMigrate(ctx context.Context, s *stage) (stop func(), err error) {
	var servers []*lab.Server
	stop = func() {
		for _, server := range servers {
			server.Stop()
		}
	}
	for _, listen := range []string{"unix://" + unixSocket(s.lab), "tls://" + s.lab.B.IP + ":7440"} {
		server, err := s.lab.B.Serve(ctx, listen)
		if err != nil {
			stop()
			return nil, err
		}
		servers = append(servers, server)
	}
	return stop, nil
}

func (m *migrateMover) start(ctx context.Context) ([]string, error) {
	for _, host := range []*lab.Host{m.lab.A, m.lab.B} {
		if err := layWorkload(ctx, host, "/srv/bundles/migrate", m.load, ""); err != nil {
			return nil, err
		}
	}
	err := m.lab.A.Start(ctx, "migrate", "run", "--detach", "--log-file", "/srv/migrate.out", "--bundle", "/srv/bundles/migrate",
		"--network", "bridge=br0,address="+migrateAddress+"/24", "bench")
	return []string{migrateAddress + ":7000"}, err
}

func (m *migrateMover) move(ctx context.Context) (*moved, error) {
	peer := "unix://" + unixSocket(m.lab)
	if m.link == "tls" {
		peer = "tls://" + m.lab.B.IP + ":7440"
	}
	memory := watchMemory(m.lab)
	defer memory.stop()
	cmd := m.lab.A.Command(ctx, append(append([]string{"migrate", "push", "--json"}, m.flags...), "bench", peer)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w := window{from: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var result migrate.Result
	var rounds window
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var event migrate.Event
		if err = json.Unmarshal(lines.Bytes(), &event); err != nil {
			err = fmt.Errorf("read event %q: %w", lines.Text(), err)
			break
		}
		switch {
		case event.Result != nil:
			result = *event.Result
		case event.Phase == "precopy" && event.Event == "phase":
			rounds.from = event.At
		case event.Phase == "freeze" && event.Event == "phase" && !rounds.from.IsZero():
			rounds.to = event.At
		}
	}
	if waitErr := cmd.Wait(); err == nil {
		err = waitErr
	}
	w.to = time.Now()
	if err != nil {
		return nil, fmt.Errorf("push: %w: %s", err, result.Error)
	}
	peaks := memory.stop()
	return &moved{sample: m.tell(&result, w, peaks), window: w, rounds: rounds}, nil
}

// tell is what push and the watch over memory say of a move.
func (m *migrateMover) tell(result *migrate.Result, w window, peaks *memoryPeaks) sample {
	s := sample{Values: map[string]float64{}, Phases: map[string]float64{}, Rounds: len(result.Rounds), RSS: peaks.rssMB}
	for phase, ms := range result.Phases {
		s.Phases[string(phase)] = ms
	}
	s.Values[total] = figures.MS(w.to.Sub(w.from))
	s.Values[downtime] = result.DowntimeMS
	s.Values[wire] = float64(result.BytesSent) / float64(m.load.mb<<20)
	s.Values[peerMem] = float64(peaks.peerBytes) / float64(m.load.whole()<<20)
	for _, mb := range peaks.rssMB {
		s.Values[rssAnon] = max(s.Values[rssAnon], mb)
	}
	if p := result.Prediction; p != nil && result.DowntimeMS > 0 {
		s.Values[off] = math.Abs(p.DowntimeMS-result.DowntimeMS) / result.DowntimeMS
	}
	return s
}

func (m *migrateMover) check(ctx context.Context) error {
	return checkWorkload(ctx, m.lab.C, migrateAddress)
}

func (m *migrateMover) clean(ctx context.Context) {
	for _, host := range []*lab.Host{m.lab.A, m.lab.B} {
		_, _ = host.Run(ctx, "migrate", "delete", "--force", "bench")
	}
}

// timeline is a run's phases in their order, as one line.
func (s *sample) timeline() string {
	var parts []string
	for _, phase := range []string{
		"precopy", "freeze", "dump", "transfer", "checkpoint", "copy", "daemon", "restore", "resume", "pages",
	} {
		if ms, ok := s.Phases[phase]; ok {
			parts = append(parts, fmt.Sprintf("%s %.0f", phase, ms))
		}
	}
	if s.Rounds > 0 {
		parts = append(parts, fmt.Sprintf("%d rounds", s.Rounds))
	}
	return strings.Join(parts, ", ")
}

// words are a run's figures on one line.
func words(values map[string]float64) string {
	var line string
	for _, figure := range []string{gap, downtime, total, later, stopped, first, wire, off, slow, rssAnon, peerMem} {
		if v, ok := values[figure]; ok {
			line += fmt.Sprintf(", %s %.*f", figure, decimals(v), v)
		}
	}
	return line[min(2, len(line)):]
}

// decimals are as many as a figure deserves: ratios get two.
func decimals(v float64) int {
	if math.Abs(v) < 10 {
		return 2
	}
	return 0
}
