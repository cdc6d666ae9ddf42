package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/filesync"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// host is this machine as the handover's peer side wants it.
type host struct {
	order *PeerOrder
	log   *slog.Logger
	place *place // what was received, for the monitor
}

func (h *host) open() (*runtime.Runtime, error) {
	return runtime.Open(&runtime.Options{Root: h.order.Root, SystemdCgroup: h.order.SystemdCgroup, Log: h.log})
}

// Reserve checks that the container can be taken, and takes its id.
func (h *host) Reserve(ctx context.Context, hello *wire.Hello) (_ handover.Place, _ *wire.Offer, err error) {
	rt, err := h.open()
	if err != nil {
		return nil, nil, err
	}
	p := &place{host: h, runtime: rt, hello: hello, targets: make(map[int]*filesync.Target), bundle: filepath.Join(h.order.Bundles, hello.GetContainer())}
	if p.lock, err = h.lock(hello.GetContainer()); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.lock.Close())
		}
	}()
	if err := h.settleEarlier(ctx, hello.GetContainer()); err != nil {
		return nil, nil, err
	}
	if _, err := rt.Load(hello.GetContainer()); !errors.Is(err, runtime.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: %s", wire.ErrExists, hello.GetContainer())
	}
	if p.spec, err = decode[specs.Spec]("config.json", hello.GetConfig()); err != nil {
		return nil, nil, err
	}
	if p.identity, err = decode[identity]("identity", hello.GetIdentity()); err != nil {
		return nil, nil, err
	}
	if err := p.check(ctx); err != nil {
		return nil, nil, err
	}
	if err := p.makeBundle(); err != nil {
		return nil, nil, err
	}
	h.place = p
	return p, &wire.Offer{Destination: hostname(), Kernel: kernelRelease()}, nil
}

// lock takes the id for the length of a move, so that two moves of one container can't meet.
func (h *host) lock(id string) (*os.File, error) {
	if err := h.order.make(); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(h.order.run(), id+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock container id: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", wire.ErrBusy, id), file.Close())
	}
	return file, nil
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
		if _, err := handover.Settle(ctx, h, h.order.Journals, s.Move.Name); err != nil {
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
	if err == nil {
		err = c.Delete(ctx, true)
	} else {
		err = rt.Remove(ctx, m.Container) // it did not get as far as a state
	}
	return errors.Join(err, h.order.removeSpool(m.Name))
}

// Settle completes a container that is ours but whose keeper is gone: the one thing it may lack is its place on the bridge.
func (h *host) Settle(ctx context.Context, id string) error {
	rt, err := h.open()
	if err != nil {
		return err
	}
	c, err := rt.Load(id)
	if errors.Is(err, runtime.ErrNotExist) {
		return nil // it was ours, and has ended since
	}
	if err != nil {
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
	l, err := link.Open(id, ns, network)
	if err != nil {
		return err
	}
	if err := l.Join(); err != nil {
		return err
	}
	return l.Announce(ctx)
}
