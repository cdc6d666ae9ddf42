package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/bench/figures"
	"github.com/livemigrate/migrate/tests/lab"
)

// The container's two addresses when runc moves it: runc leaves the network to others, so each host has a namespace ready.
const (
	runcAddressA = "10.77.0.101"
	runcAddressB = "10.77.0.102"
	copyPort     = "7070"
)

// runcMover moves as people do it by hand.
type runcMover struct {
	*stage
	load load
}

// makeNamespaces makes what the container will join by path, anew for each run: a dump leaves CRIU's lock in it, which drops
// every packet. The hardware address stays, or the client would go on asking the last run's.
func (m *runcMover) makeNamespaces(ctx context.Context) error {
	for host, address := range map[*lab.Host]string{m.lab.A: runcAddressA, m.lab.B: runcAddressB} {
		_, err := host.Run(ctx, "bash", "-ec", `
			[ ! -e /run/netns/bench ] || ip link del bench0
			[ ! -e /run/netns/bench ] || ip netns del bench
			ip netns add bench
			ip link add name bench0 type veth peer name eth0 address "02:00:0a:4d:01:${0: -2}" netns bench
			ip link set dev bench0 master br0 up
			ip -n bench link set lo up
			ip -n bench link set eth0 up
			ip -n bench addr add $0/24 dev eth0`, address)
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *runcMover) start(ctx context.Context) ([]string, error) {
	if err := m.makeNamespaces(ctx); err != nil {
		return nil, err
	}
	for _, host := range []*lab.Host{m.lab.A, m.lab.B} {
		if err := layWorkload(ctx, host, "/srv/bundles/runc", m.load, "/run/netns/bench"); err != nil {
			return nil, err
		}
		if _, err := host.Run(ctx, "mkdir", "-p", "/run/images"); err != nil {
			return nil, err
		}
	}
	_, err := m.lab.A.Run(ctx, "sh", "-c", "exec runc run --detach --bundle /srv/bundles/runc runc </dev/null >/dev/null 2>&1")
	return []string{runcAddressA + ":7000", runcAddressB + ":7000"}, err
}

// runc is a command of its, with the CRIU that works here.
func runc(args ...string) []string { return append([]string{"runc", "--criu", lab.CRIU()}, args...) }

func (m *runcMover) move(ctx context.Context) (*moved, error) {
	copied, err := m.awaitImages(ctx)
	if err != nil {
		return nil, err
	}
	return timed(
		step{"checkpoint", func() error {
			_, err := m.lab.A.Run(ctx, runc("checkpoint", "--image-path", "/run/images", "--work-path", "/run", "runc")...)
			return err
		}},
		step{"copy", copied},
		step{"restore", func() error { return m.restore(ctx) }},
	)
}

// awaitImages starts the receiving end of the copy. What it returns does the copy.
func (m *runcMover) awaitImages(ctx context.Context) (copied func() error, err error) {
	receiver := m.lab.B.Command(ctx, m.self, "receive", m.lab.B.IP+":"+copyPort, "/run/images")
	ready, err := receiver.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := receiver.Start(); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("receive images: %w", err), receiver.Wait())
	}
	return func() error {
		_, err := m.lab.A.Run(ctx, m.self, "send", "/run/images", m.lab.B.IP+":"+copyPort)
		return errors.Join(err, receiver.Wait())
	}, nil
}

func (m *runcMover) restore(ctx context.Context, flags ...string) error {
	args := runc(append([]string{
		"restore", "--detach", "--image-path", "/run/images", "--work-path", "/run",
		"--bundle", "/srv/bundles/runc",
	}, flags...)...)
	_, err := m.lab.B.Run(ctx, "sh", "-c", "exec "+strings.Join(args, " ")+" runc </dev/null >/run/restore.out 2>&1")
	return err
}

// step is a part of a chain.
type step struct {
	name string
	run  func() error
}

func timed(steps ...step) (*moved, error) {
	result := &moved{sample: sample{Values: map[string]float64{}, Phases: map[string]float64{}}}
	result.from = time.Now()
	for _, step := range steps {
		start := time.Now()
		if err := step.run(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		result.Phases[step.name] = figures.MS(time.Since(start))
	}
	result.to = time.Now()
	result.Values[total] = figures.MS(result.to.Sub(result.from))
	return result, nil
}

func (m *runcMover) check(ctx context.Context) error {
	return checkWorkload(ctx, m.lab.C, runcAddressB)
}

func (m *runcMover) clean(ctx context.Context) {
	for _, host := range []*lab.Host{m.lab.A, m.lab.B} {
		// Whatever is not there any more is no loss.
		_, _ = host.Run(ctx, "runc", "delete", "--force", "runc")
		_, _ = host.Run(ctx, "sh", "-c", "rm -rf /run/images /run/lazy-pages.socket")
	}
}

// layWorkload makes the bundle on a host. With a network namespace's path the container joins it.
func layWorkload(ctx context.Context, host *lab.Host, dir string, l load, netns string) error {
	err := host.Bundle(ctx, "workload", dir, l.args()...)
	if err != nil || netns == "" {
		return err
	}
	path := host.Path(dir + "/config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text = []byte(strings.Replace(string(text), `{"type": "network"}`, `{"type": "network", "path": "`+netns+`"}`, 1))
	return os.WriteFile(path, text, 0o644)
}

// checkWorkload has the container verify every byte of its memory.
func checkWorkload(ctx context.Context, from *lab.Host, address string) error {
	out, err := from.Run(ctx, "bash", "-c", `exec 3<>/dev/tcp/$0/7000; echo check >&3; timeout 30 head -n 1 <&3`, address)
	if err != nil || strings.TrimSpace(out) != "ok 1" {
		return fmt.Errorf("check memory after the move: %q: %w", out, err)
	}
	return nil
}
