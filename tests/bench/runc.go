package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
type runcMover struct{ *setting }

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

func (m *runcMover) start(ctx context.Context, size int) ([]string, error) {
	if err := m.makeNamespaces(ctx); err != nil {
		return nil, err
	}
	for _, host := range []*lab.Host{m.lab.A, m.lab.B} {
		if err := layWorkload(ctx, host, "/srv/bundles/runc", size, m.rate, "/run/netns/bench"); err != nil {
			return nil, err
		}
		if _, err := host.Run(ctx, "mkdir", "-p", "/run/images"); err != nil {
			return nil, err
		}
	}
	_, err := m.lab.A.Run(ctx, "sh", "-c", "exec runc run --detach --bundle /srv/bundles/runc runc </dev/null >/dev/null 2>&1")
	return []string{runcAddressA + ":7000", runcAddressB + ":7000"}, err
}

func (m *runcMover) move(ctx context.Context) (*measuredMove, window, error) {
	receiver := m.lab.B.Command(ctx, m.self, "receive", m.lab.B.IP+":"+copyPort, "/run/images")
	ready, err := receiver.StdoutPipe()
	if err != nil {
		return nil, window{}, err
	}
	if err := receiver.Start(); err != nil {
		return nil, window{}, err
	}
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return nil, window{}, fmt.Errorf("receive images: %w", err)
	}
	criu := []string{"--criu", lab.CRIU()}
	began := time.Now()
	steps := []struct {
		name string
		run  func() error
	}{
		{"checkpoint", func() error {
			args := append([]string{"runc"}, criu...)
			_, err := m.lab.A.Run(ctx, append(args, "checkpoint", "--image-path", "/run/images", "--work-path", "/run", "runc")...)
			return err
		}},
		{"copy", func() error {
			_, err := m.lab.A.Run(ctx, m.self, "send", "/run/images", m.lab.B.IP+":"+copyPort)
			return errors.Join(err, receiver.Wait())
		}},
		{"restore", func() error {
			_, err := m.lab.B.Run(ctx, "sh", "-c",
				"exec runc "+strings.Join(criu, " ")+" restore --detach --image-path /run/images --work-path /run --bundle /srv/bundles/runc runc </dev/null >/dev/null 2>&1")
			return err
		}},
	}
	measured := &measuredMove{Phases: map[string]float64{}}
	for _, step := range steps {
		start := time.Now()
		if err := step.run(); err != nil {
			return nil, window{}, fmt.Errorf("%s: %w", step.name, err)
		}
		measured.Phases[step.name] = figures.MS(time.Since(start))
	}
	ended := time.Now()
	measured.TotalMS = figures.MS(ended.Sub(began))
	return measured, window{began, ended}, nil
}

func (m *runcMover) check(ctx context.Context) error {
	return checkWorkload(ctx, m.lab.C, runcAddressB)
}

func (m *runcMover) clean(ctx context.Context) {
	for _, host := range []*lab.Host{m.lab.A, m.lab.B} {
		// Whatever is not there any more is no loss.
		_, _ = host.Run(ctx, "runc", "delete", "--force", "runc")
		_, _ = host.Run(ctx, "sh", "-c", "rm -rf /run/images")
	}
}

// layWorkload makes the bundle on a host. With a network namespace's path the container joins it.
func layWorkload(ctx context.Context, host *lab.Host, dir string, size, rate int, netns string) error {
	err := host.Bundle(ctx, "workload", dir, "memory", "--rate", strconv.Itoa(rate), strconv.Itoa(size))
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

// sendFiles streams a directory's files over one connection. io.Copy of a file to a TCP connection is sendfile(2).
func sendFiles(dir, address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		if err := sendFile(conn, filepath.Join(dir, entry.Name()), info.Size()); err != nil {
			return err
		}
	}
	return nil
}

type fileHeader struct {
	Name string
	Size int64
}

func sendFile(conn net.Conn, path string, size int64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	header, err := json.Marshal(fileHeader{filepath.Base(path), size})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "%s\n", header); err != nil {
		return err
	}
	_, err = io.Copy(conn, file)
	return err
}

// receiveFiles takes one connection's files into a directory.
func receiveFiles(address, dir string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Print(".")
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		header, err := readHeader(conn)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		file, err := os.Create(filepath.Join(dir, filepath.Base(header.Name)))
		if err != nil {
			return err
		}
		_, err = io.CopyN(file, conn, header.Size)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
}

// readHeader reads byte by byte: what follows the line must stay in the socket, for splice(2).
func readHeader(conn net.Conn) (*fileHeader, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(conn, b); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	header := &fileHeader{}
	return header, json.Unmarshal(line, header)
}
