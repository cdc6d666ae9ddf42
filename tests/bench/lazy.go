package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/livemigrate/migrate/tests/lab"
)

const pagePort = "7072"

// lazyMover moves with runc and CRIU's own post-copy: a page server at the source, a daemon that fetches from it at the peer.
// It has moved when both have ended.
type lazyMover struct{ runcMover }

func (m *lazyMover) move(ctx context.Context) (*moved, error) {
	copied, err := m.awaitImages(ctx)
	if err != nil {
		return nil, err
	}
	server := m.lab.A.Command(ctx, runc("checkpoint", "--image-path", "/run/images", "--work-path", "/run", "--lazy-pages",
		"--page-server", m.lab.A.IP+":"+pagePort, "--status-fd", "1", "runc")...)
	daemon := m.lab.B.Command(ctx, lab.CRIU(), "lazy-pages", "--page-server", "--address", m.lab.A.IP, "--port", pagePort,
		"--images-dir", "/run/images", "--work-dir", "/run", "--log-file", "/run/lazy-pages.log")
	var said watchedBuffer
	server.Stderr, daemon.Stderr = &said, &said
	defer abandon(server)
	defer abandon(daemon)
	result, err := timed(
		step{"checkpoint", func() error { return startReady(server) }},
		step{"copy", copied},
		step{"daemon", func() error { return m.startDaemon(ctx, daemon) }},
		step{"restore", func() error { return m.restore(ctx, "--lazy-pages") }},
		step{"pages", func() error { return errors.Join(daemon.Wait(), server.Wait()) }},
	)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return result, nil
}

// startReady returns when CRIU serves pages: runc writes a byte then.
func startReady(server *exec.Cmd) error {
	ready, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	_, err = io.ReadFull(ready, make([]byte, 1))
	return err
}

// startDaemon returns when a restore can connect to it.
func (m *lazyMover) startDaemon(ctx context.Context, daemon *exec.Cmd) error {
	if err := daemon.Start(); err != nil {
		return err
	}
	_, err := m.lab.B.Run(ctx, "bash", "-c", `for i in {1..2000}; do [ ! -S /run/lazy-pages.socket ] || exit 0; sleep 0.002; done; exit 1`)
	return err
}

// abandon ends a command that an error has left behind.
func abandon(cmd *exec.Cmd) {
	if cmd.Process != nil && cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
