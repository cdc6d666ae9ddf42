package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/tests/lab"
)

const (
	containerID = "c"
	containerIP = "10.77.0.100"
	bundle      = "/srv/bundles/" + containerID
)

// world is the lab that cells share, with a peer's side on host B behind a relay that can do harm.
type world struct {
	*lab.Lab
	name   string
	points string // directory of the failpoints
	server *lab.Server
	tls    *relay
	ssh    *relay
	clean  map[*lab.Host]census
}

// newWorld makes it: everything that a cell may take for granted.
func newWorld(ctx context.Context, name, programs string) (_ *world, err error) {
	w := &world{name: name, points: filepath.Join(os.TempDir(), name+"-points")}
	if err := os.MkdirAll(w.points, 0o755); err != nil {
		return nil, err
	}
	for key, value := range map[string]string{"LAB_PROGRAMS": programs, "MIGRATE_FAILPOINTS": w.points} {
		if err := os.Setenv(key, value); err != nil {
			return nil, err
		}
	}
	if w.Lab, err = lab.Up(ctx, name, nil); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(ctx))
		}
	}()
	if err := w.fakeBoot(ctx); err != nil {
		return nil, err
	}
	if err := w.serve(ctx); err != nil {
		return nil, err
	}
	if w.tls, err = newRelay(w.B, "10.77.0.2:7460", "10.77.0.2:7440"); err != nil {
		return nil, err
	}
	if w.ssh, err = newRelay(w.B, "10.77.0.2:7461", "10.77.0.2:22"); err != nil {
		return nil, err
	}
	if err := w.trustRelay(); err != nil {
		return nil, err
	}
	if err := w.A.Bundle(ctx, "workload", bundle, "beat", "4", "--rate", "200"); err != nil {
		return nil, err
	}
	return w, w.settle(ctx)
}

// settle makes one move, whose traces (what CRIU found out, directories of logs) are there from then on, and takes the census
// that every cell has to leave behind.
func (w *world) settle(ctx context.Context) error {
	if err := w.run(ctx); err != nil {
		return err
	}
	p, err := w.A.Push(ctx, containerID, w.peer(false))
	if err != nil {
		return err
	}
	defer p.Kill()
	if code, err := p.Wait(time.Minute); code != 0 || err != nil {
		return fmt.Errorf("a move without a fault ends with %d: %s %w", code, p.Result.Error, err)
	}
	if err := w.B.Start(ctx, "migrate", "delete", "--force", containerID); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond)
	w.clean = make(map[*lab.Host]census)
	for _, h := range []*lab.Host{w.A, w.B} {
		if w.clean[h], err = w.count(h); err != nil {
			return err
		}
	}
	return nil
}

// trustRelay makes A's ssh know B at the relay's port.
func (w *world) trustRelay() error {
	key, err := os.ReadFile(filepath.Join("/var/lib/migrate-lab", w.name, "b", "ssh", "host_key.pub"))
	if err != nil {
		return err
	}
	known, err := os.OpenFile(filepath.Join("/var/lib/migrate-lab", w.name, "a", "ssh", "ssh_known_hosts"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(known, "[10.77.0.2]:7461 %s", key)
	return errors.Join(err, known.Close())
}

// fakeBoot gives the hosts boot ids that can be changed.
func (w *world) fakeBoot(ctx context.Context) error {
	for _, h := range []*lab.Host{w.A, w.B} {
		if err := w.newBoot(h); err != nil {
			return err
		}
		if _, err := h.Run(ctx, "mount", "--bind", "/srv/boot_id", "/proc/sys/kernel/random/boot_id"); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) newBoot(h *lab.Host) error {
	id := fmt.Sprintf("00000000-0000-4000-8000-%012x\n", time.Now().UnixNano()&0xffffffffffff)
	return os.WriteFile(h.Path("/srv/boot_id"), []byte(id), 0o644)
}

// serve listens on B, if nobody does any more.
func (w *world) serve(ctx context.Context) (err error) {
	if w.server != nil && w.server.Alive() {
		return nil
	}
	if w.server != nil {
		w.server.Stop()
	}
	w.server, err = w.B.Serve(ctx, "tls://10.77.0.2:7440")
	return err
}

// peer is B's address behind a relay.
func (w *world) peer(ssh bool) string {
	if ssh {
		return "ssh://root@10.77.0.2:7461"
	}
	return "tls://10.77.0.2:7460"
}

// run starts the container on A.
func (w *world) run(ctx context.Context) error {
	return w.A.Start(ctx, "migrate", "run", "--detach", "--log-file", "/srv/"+containerID+".log", "--bundle", bundle,
		"--network", "bridge=br0,address="+containerIP+"/24", containerID)
}

// arm makes the next move stop at the point.
func (w *world) arm(p failpoint.Point, action string) error {
	return os.WriteFile(filepath.Join(w.points, string(p)), []byte(action), 0o644)
}

// hit tells whether a move stands at the point.
func (w *world) hit(p failpoint.Point) bool {
	_, err := os.Stat(filepath.Join(w.points, string(p)+".hit"))
	return err == nil
}

// release lets moves go on, and stops no more of them.
func (w *world) release() error { return w.remove("[ps]*") }

// resetClocks gives the hosts the right time again.
func (w *world) resetClocks() error { return w.remove("clock-*") }

func (w *world) remove(pattern string) error {
	files, err := filepath.Glob(filepath.Join(w.points, pattern))
	for _, file := range files {
		if removeErr := os.Remove(file); !errors.Is(removeErr, os.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

func (w *world) close(ctx context.Context) error {
	err := w.release()
	for _, r := range []*relay{w.tls, w.ssh} {
		if r != nil {
			r.close()
		}
	}
	if w.server != nil {
		w.server.Stop()
	}
	return errors.Join(err, os.RemoveAll(w.points), lab.Down(context.WithoutCancel(ctx), w.name))
}
