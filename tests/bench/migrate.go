package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/livemigrate/migrate/tests/bench/figures"
	"github.com/livemigrate/migrate/tests/lab"
)

const migrateAddress = "10.77.0.100"

// migrateMover moves by `migrate push`.
type migrateMover struct {
	*setting
	link string
}

// unixSocket is a path that both hosts see: they share the machine's files outside /srv, /run and /var/lib/migrate.
func unixSocket(l *lab.Lab) string { return "/var/lib/migrate-lab/" + l.Name + "/peer.sock" }

// prepareMigrate starts the peer's side, once for each link.
func prepareMigrate(ctx context.Context, s *setting) (stop func(), err error) {
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

func (m *migrateMover) start(ctx context.Context, size int) ([]string, error) {
	if err := layWorkload(ctx, m.lab.A, "/srv/bundles/migrate", size, m.rate, ""); err != nil {
		return nil, err
	}
	err := m.lab.A.Start(ctx, "migrate", "run", "--detach", "--log-file", "/srv/migrate.out", "--bundle", "/srv/bundles/migrate",
		"--network", "bridge=br0,address="+migrateAddress+"/24", "bench")
	return []string{migrateAddress + ":7000"}, err
}

func (m *migrateMover) move(ctx context.Context) (*measuredMove, window, error) {
	peer := "unix://" + unixSocket(m.lab)
	if m.link == "tls" {
		peer = "tls://" + m.lab.B.IP + ":7440"
	}
	memory := watchMemory(m.lab)
	cmd := m.lab.A.Command(ctx, "migrate", "push", "--json", "bench", peer)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, window{}, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, window{}, err
	}
	var result struct {
		Event   string             `json:"event"`
		Outcome string             `json:"outcome"`
		Phases  map[string]float64 `json:"phases"`
		Error   string             `json:"error"`
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		// Only the last line is a result; the others have fewer fields.
		if err := json.Unmarshal(lines.Bytes(), &result); err != nil {
			return nil, window{}, fmt.Errorf("read event %q: %w", lines.Text(), err)
		}
	}
	err = cmd.Wait()
	ended := time.Now()
	peaks := memory.stop()
	if err != nil {
		return nil, window{}, fmt.Errorf("push: %w: %s", err, result.Error)
	}
	return &measuredMove{TotalMS: figures.MS(ended.Sub(began)), Phases: result.Phases, RSSAnon: peaks}, window{began, ended}, nil
}

func (m *migrateMover) check(ctx context.Context) error {
	return checkWorkload(ctx, m.lab.C, migrateAddress)
}

func (m *migrateMover) clean(ctx context.Context) {
	for _, host := range []*lab.Host{m.lab.A, m.lab.B} {
		_, _ = host.Run(ctx, "migrate", "delete", "--force", "bench")
	}
}
