package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

type options struct {
	moves, containers, atOnce int
	modes, ways               []string
	lab                       string
	out                       io.Writer
}

// world is the lab with a serve on both hosts.
type world struct {
	*lab.Lab
	*options
	servers map[*lab.Host]*lab.Server
	tmp     string // what is at work here has for /tmp
}

// soak prints the tables. The error says what was lost, or what has grown.
func soak(ctx context.Context, o *options) (err error) {
	if o.moves%2 != 0 {
		return fmt.Errorf("%d moves: want an even number, so that what is counted is on the same host", o.moves)
	}
	w := &world{options: o, servers: make(map[*lab.Host]*lab.Server)}
	if w.tmp, err = os.MkdirTemp("/dev/shm", "soak-"); err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", w.tmp); err != nil { // the hosts share the machine's, and others are at work in it
		return err
	}
	if w.Lab, err = lab.Up(ctx, o.lab, nil); err != nil {
		return err
	}
	settled := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, lab.Down(settled, o.lab), os.RemoveAll(w.tmp)) }()
	for _, h := range []*lab.Host{w.A, w.B} {
		if w.servers[h], err = h.Serve(ctx, "tls://"+h.IP+":7440"); err != nil {
			return err
		}
		defer w.servers[h].Stop()
	}
	if err := w.shuttle(ctx); err != nil {
		return errors.Join(err, w.logs())
	}
	if err := w.drains(ctx); err != nil {
		return errors.Join(err, w.logs())
	}
	return nil
}

// peer is the address of a host.
func peer(h *lab.Host, way string) string {
	if way == "ssh" {
		return "ssh://root@" + h.IP
	}
	return "tls://" + h.IP + ":7440"
}

// logs says where the hosts' stories are kept, for the lab goes.
func (w *world) logs() error {
	dir, err := os.MkdirTemp("/tmp", "soak-logs-")
	if err != nil {
		return err
	}
	for _, h := range []*lab.Host{w.A, w.B} {
		_, failed := exec.Command("cp", "-a", h.Path("/var/lib/migrate/log"), filepath.Join(dir, h.Name)).Output()
		err = errors.Join(err, failed)
	}
	return errors.Join(err, fmt.Errorf("logs are in %s", dir))
}

// run starts a container with an address.
func (w *world) run(ctx context.Context, h *lab.Host, id, kind, address string, args ...string) error {
	if err := h.Bundle(ctx, kind, "/srv/bundles/"+id, args...); err != nil {
		return err
	}
	return h.Start(ctx, "migrate", "run", "--detach", "--log-file", "/srv/"+id+".log", "--bundle", "/srv/bundles/"+id,
		"--network", "bridge=br0,address="+address+"/24", id)
}

// patience is how long a client waits for a reply, and what has ended may take to go.
const patience = 30 * time.Second
