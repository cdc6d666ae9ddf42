package checkpoint

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/runtime"
)

// A network namespace with a link of ours is made anew at the restore, as is one that an engine has made when the container
// moves to a peer, and nothing of it is in the images. CRIU looks at it all the same, for the connections that netfilter tracks on the whole machine: 20 ms and more of the freeze. It does not if
// it is in the namespace itself, and takes it for the host's.

// errForeign: CRIU, inside the container's network namespace, would not notice that something is of another.
var errForeign = errors.New("not all of it is in one network namespace")

// plug is what the container is connected to its network by, and cut off from it for the time of a dump.
type plug interface {
	Leave() error // when it returns, no packet comes or goes; twice is harmless
	Join() error
}

// openPlug finds it; nil when CRIU's own lock has to do. close has to be called.
func openPlug(c *runtime.Container) (_ plug, shut func() error, err error) {
	shut = func() error { return nil }
	if network := c.State().Network; network != nil {
		// Its network namespace is not needed: nothing is announced from it.
		l, err := link.Open(c.ID(), nil, network)
		if err != nil {
			return nil, shut, err
		}
		return l, shut, nil
	}
	if c.Plan().NamespacePath(specs.NetworkNamespace) == "" {
		return nil, shut, nil
	}
	ns, err := netns.OfProcess(c.InitPid())
	if errors.Is(err, os.ErrNotExist) {
		return nil, shut, nil // it has ended
	}
	if err != nil {
		return nil, shut, err
	}
	hosts, err := netspace.IsHosts(ns)
	if hosts || err != nil {
		return nil, shut, errors.Join(err, ns.Close())
	}
	return space{ns}, ns.Close, nil
}

// space is a network namespace that an engine has made.
type space struct{ ns *os.File }

func (s space) Leave() error { return netspace.Cut(s.ns) }
func (s space) Join() error  { return netspace.Join(s.ns) }

// mayEnter tells whether CRIU may be in the container's network namespace, and which sockets were found to be of it.
func (o *Options) mayEnter(c *runtime.Container) (*sockets, error) {
	plan := c.Plan()
	switch {
	case o.byItself:
		return nil, errors.New("what the container has to do with the network has just changed")
	case !o.NoManifest:
		return nil, errors.New("the images are to be restored by anybody")
	case plan.Private(specs.UserNamespace):
		return nil, errors.New("CRIU makes the network of a user namespace")
	case plan.Network == nil && plan.NamespacePath(specs.NetworkNamespace) == "":
		return nil, errors.New("the container has no network namespace that the peer makes")
	}
	pids, err := c.Processes()
	if err != nil {
		return nil, err
	}
	own, err := sharedNetwork(c.InitPid(), pids)
	if err != nil {
		return nil, err
	}
	s := newSockets(own)
	if err := s.check(pids); err != nil {
		return nil, err
	}
	return s, nil
}

// sharedNetwork is the network namespace that init and all these processes are in.
func sharedNetwork(init int, pids []int) (uint64, error) {
	own, err := netns.InodeOfProcess(init)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		inode, err := netns.InodeOfProcess(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return 0, err
		}
		if inode != own {
			return 0, fmt.Errorf("%w: process %d", errForeign, pid)
		}
	}
	return own, nil
}

// networkIsOwn is asked when nothing runs any more: nobody has gone to another namespace meanwhile, or got a socket of one.
func (d *dump) networkIsOwn(pids []int) error {
	if !d.client.InNetwork() {
		return nil
	}
	own, err := sharedNetwork(d.container.InitPid(), pids)
	if err == nil && own != d.sockets.own {
		err = errForeign
	}
	if err == nil {
		err = d.sockets.check(pids)
	}
	if err != nil && !errors.Is(err, errForeign) {
		return fmt.Errorf("%w, it may be: %w", errForeign, err)
	}
	return err
}

// unplug begins to cut the container off from its network. The kernel takes some milliseconds for that; see unplugged.
func (d *dump) unplug() {
	if d.plug == nil {
		return
	}
	d.unplugging = make(chan error, 1)
	go func() { d.unplugging <- d.plug.Leave() }()
}

// unplugged returns when no packet comes to the container any more.
func (d *dump) unplugged() error {
	if d.unplugging == nil {
		return nil
	}
	err := <-d.unplugging
	d.unplugging <- err // for whoever else asks
	return err
}

// rejoin connects it again.
func (d *dump) rejoin() error {
	if d.unplugging == nil {
		return nil
	}
	_ = d.unplugged() // it may have left for all that
	if err := d.plug.Join(); err != nil {
		return err
	}
	d.unplugging = nil
	return nil
}
