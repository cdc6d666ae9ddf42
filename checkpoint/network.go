package checkpoint

import (
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/runtime"
)

// A network namespace with a link of ours is made anew at the restore, and nothing of it is in the images. CRIU looks at it
// all the same, for the connections that netfilter tracks on the whole machine: 20 ms and more of the freeze. It does not if
// it is in the namespace itself, and takes it for the host's.

// errForeign: CRIU, inside the container's network namespace, would not notice that something is of another.
var errForeign = errors.New("not all of it is in one network namespace")

// openLink finds the container's link. Its network namespace is not needed: nothing is announced from it.
func openLink(id string, network *runtime.Network) (*link.Link, error) {
	return link.Open(id, nil, network)
}

// mayEnter tells whether CRIU may be in the container's network namespace, and which sockets were found to be of it.
func (o *Options) mayEnter(c *runtime.Container) (*sockets, error) {
	plan := c.Plan()
	switch {
	case o.byItself:
		return nil, errors.New("what the container has to do with the network has just changed")
	case !o.NoManifest:
		return nil, errors.New("the images are to be restored by anybody")
	case plan.Network == nil || !plan.Private(specs.NetworkNamespace) || plan.Private(specs.UserNamespace):
		return nil, errors.New("the container has no network namespace with a link of ours")
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

// unplug begins to take the link off its bridge. The kernel takes some milliseconds for that; see unplugged.
func (d *dump) unplug() {
	if d.link == nil {
		return
	}
	d.plug = make(chan error, 1)
	go func() { d.plug <- d.link.Leave() }()
}

// unplugged returns when no packet comes to the container any more.
func (d *dump) unplugged() error {
	if d.plug == nil {
		return nil
	}
	err := <-d.plug
	d.plug <- err // for whoever else asks
	return err
}

// rejoin puts the link back on its bridge.
func (d *dump) rejoin() error {
	if d.plug == nil {
		return nil
	}
	_ = d.unplugged() // it may have left for all that
	if err := d.link.Join(); err != nil {
		return err
	}
	d.plug = nil
	return nil
}
