package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/filesync"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

// host is this machine as the handover's peer side wants it.
type host struct {
	order *PeerOrder
	log   *slog.Logger
	place *place // what was received, for the monitor

	feeding sync.WaitGroup // of memory that was taken over, see refeed
}

func (h *host) open() (*runtime.Runtime, error) {
	return runtime.Open(&runtime.Options{Root: h.order.Root, SystemdCgroup: h.order.SystemdCgroup, Log: h.log})
}

func (h *host) newPlace(hello *wire.Hello) (*place, error) {
	rt, err := h.open()
	if err != nil {
		return nil, err
	}
	return &place{
		host: h, runtime: rt, hello: hello, targets: make(map[int]*filesync.Target),
		bundle: filepath.Join(h.order.Bundles, hello.GetContainer()),
	}, nil
}

// Look tells whether the container could be taken.
func (h *host) Look(ctx context.Context, hello *wire.Hello) (*wire.Offer, error) {
	p, err := h.newPlace(hello)
	if err != nil {
		return nil, err
	}
	return p.look(ctx)
}

// Reserve checks that the container can be taken, and takes its id.
func (h *host) Reserve(ctx context.Context, hello *wire.Hello) (_ handover.Place, _ *wire.Offer, err error) {
	p, err := h.newPlace(hello)
	if err != nil {
		return nil, nil, err
	}
	if p.lock, err = h.order.claim(ctx, hello.GetContainer()); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.lock.Close())
		}
	}()
	if most := h.order.Limits.Moves; most > 0 {
		if p.lock.slot, err = h.order.takeSlot(most); err != nil {
			return nil, nil, err
		}
		if p.lock.slot == nil {
			return nil, nil, allBusy(most)
		}
	}
	if err := h.settleEarlier(ctx, hello.GetContainer()); err != nil {
		return nil, nil, err
	}
	h.order.sweep(h.log)
	h.order.prune(journal.Peer, hello.GetContainer(), h.log)
	offer, err := p.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := p.makeLog(); err != nil {
		return nil, nil, err
	}
	if err := p.makeBundle(); err != nil {
		return nil, nil, errors.Join(err, p.closeLog(), p.removeLog())
	}
	h.place = p
	return p, offer, nil
}

// settleEarlier ends moves of the container that a crash of their keepers has left here: what they have left is in the way.
func (h *host) settleEarlier(ctx context.Context, id string) error {
	stories, err := journal.List(h.order.Journals)
	if err != nil {
		h.log.Warn("some journals can't be read", "error", err)
	}
	for _, s := range stories {
		if s.Move.Role != journal.Peer || s.Move.Container != id || s.Move.Root != h.order.Root || s.Ended() {
			continue
		}
		h.log.Info("ending an earlier move whose keeper is gone", "move", s.Move.Name)
		_, err := handover.Settle(ctx, h, h.order.Journals, s.Move.Name)
		if err != nil && s.Last() != journal.Owing { // what is left of such a container has the id still, for look, or was deleted
			return err
		}
	}
	return nil
}

// Discard destroys what a keeper that is gone has left of a container that never ran here.
func (h *host) Discard(ctx context.Context, m journal.Move) error {
	rt, err := h.open()
	if err != nil {
		return err
	}
	c, err := rt.Load(m.Container)
	switch {
	case errors.Is(err, runtime.ErrNotExist):
		err = rt.Remove(ctx, m.Container, true) // it did not get as far as a state
	case err == nil && c.State().Arrival == m.Name:
		err = c.Delete(ctx, true)
	case err == nil:
		h.log.Info("the id has been taken by another container", "container", m.Container, "move", m.Name)
	}
	// CRIU waits for a keeper that is gone, if the cgroup did not have it. It ends after what it holds, which would run else, and is
	// found by the images.
	if err == nil {
		for _, pid := range h.order.criuAt(m.Name) {
			err = errors.Join(err, killCRIU(pid))
		}
	}
	err = errors.Join(err, discardNetwork(ctx, h.order.Places, m.Name, h.log), restore.RemoveYards(h.order.logs(m.Container)))
	if err != nil {
		return err
	}
	return h.order.clear(m.Name)
}

func killCRIU(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill criu: %w", err)
	}
	return nil
}

// Settle completes a container that is ours but whose keeper is gone: it may lack its place on the bridge and some of its memory,
// and stand still as a restore leaves it until CRIU has ended.
func (h *host) Settle(ctx context.Context, m journal.Move) error {
	c, err := h.arrived(m)
	if errors.Is(err, wire.ErrEnded) || errors.Is(err, wire.ErrPaid) {
		return h.order.clear(m.Name) // it was ours
	}
	if err != nil {
		return err
	}
	if err := h.release(ctx, c, m); err != nil {
		return err
	}
	h.refeed(ctx, c)
	return nil
}

// release lets it run.
func (h *host) release(ctx context.Context, c *runtime.Container, m journal.Move) error {
	if err := h.order.clear(m.Name); err != nil {
		h.log.Warn("clear up after the move", "error", err)
	}
	if c.State().Move != "" {
		return nil // it is on its way to somewhere else
	}
	h.awaitCRIU(ctx, c)
	if err := c.Thaw(ctx); err != nil {
		return err
	}
	if err := h.connect(ctx, c, m); err != nil { // it is ours all the same
		h.log.Error("the container runs without all of its network", "container", m.Container, "error", err)
	}
	return nil
}

// awaitCRIU returns when CRIU, which goes on without its keeper, has let go of every task. One that ran and ended before its
// turn would make it kill all of them; and who stops the tasks next must not meet it.
func (h *host) awaitCRIU(ctx context.Context, c *runtime.Container) {
	err := criu.AwaitLetGo(ctx, c.Processes)
	if holder := holderOf(c); err != nil && holder != 0 {
		// It was held when its keeper died, without a freezer, and waits for an answer. What it has restored goes on without it.
		h.log.Warn("criu waits for a keeper that is gone; ending it", "container", c.ID(), "pid", holder)
		err = errors.Join(killCRIU(holder), criu.AwaitLetGo(ctx, c.Processes))
	}
	if err != nil {
		h.log.Warn("the container runs on all the same", "container", c.ID(), "error", err)
	}
}

// holderOf is the CRIU that holds a container's tasks; 0 when none does.
func holderOf(c *runtime.Container) int {
	pids, _ := c.Processes()
	for _, pid := range pids {
		if holder := criu.Holder(pid); holder != 0 {
			return holder
		}
	}
	return 0
}

func (h *host) connect(ctx context.Context, c *runtime.Container, m journal.Move) error {
	if n, err := loadNetwork(h.order.Places, m.Name, h.log); n != nil || err != nil {
		if err == nil {
			err = n.open(ctx, nil)
		}
		if err == nil {
			return n.done()
		}
		if n != nil {
			err = errors.Join(err, n.close()) // the source, if it asks again, has it tried again
		}
		return err
	}
	network := c.State().Network
	pid := c.InitPid()
	if network == nil || pid == 0 {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil // it has ended
	}
	defer func() { _ = ns.Close() }()
	l, err := link.Open(c.ID(), ns, network)
	if err != nil {
		return err
	}
	if err := l.Join(); err != nil {
		return err
	}
	return l.Announce(ctx)
}
