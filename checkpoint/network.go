package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/pidfd"
	"github.com/livemigrate/migrate/runtime"
)

// A network namespace with a link of ours is made anew at the restore, and nothing of it is in the images. CRIU looks at it
// all the same, for the connections that netfilter tracks on the whole machine: 20 ms and more of the freeze. It does not if
// it is in the namespace itself, and takes it for the host's.

// errForeign: CRIU, inside the container's network namespace, would not notice that something is of another.
var errForeign = errors.New("not all of it is in one network namespace")

// tunPath is where TUN devices come from. CRIU saves them in a namespace of the container's only.
const tunPath = "/dev/net/tun"

// openLink finds the container's link. Its network namespace is not needed: nothing is announced from it.
func openLink(id string, network *runtime.Network) (*link.Link, error) {
	return link.Open(id, nil, network)
}

// mayEnter tells whether CRIU may be in the container's network namespace.
func (o *Options) mayEnter(c *runtime.Container) error {
	plan := c.Plan()
	switch {
	case !o.NoManifest:
		return errors.New("the images are to be restored by anybody")
	case plan.Network == nil || !plan.Private(specs.NetworkNamespace) || plan.Private(specs.UserNamespace):
		return errors.New("the container has no network namespace with a link of ours")
	}
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	own, err := sharedNetwork(c.InitPid(), pids)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := ownSockets(pid, own); err != nil {
			return err
		}
	}
	return nil
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

// ownSockets: every socket of the process is of that namespace, and it has no TUN device.
func ownSockets(pid int, own uint64) error {
	process, err := pidfd.Open(pid)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer process.Close()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, e := range list {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case err != nil:
			continue // it was just closed
		case to == tunPath:
			return fmt.Errorf("%w: process %d has a TUN device", errForeign, pid)
		case !strings.HasPrefix(to, "socket:"):
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("list open files: %w", err)
		}
		socket, err := pidfd.GetFD(process, fd)
		if err != nil {
			continue // closed meanwhile
		}
		inode, err := netns.InodeOfSocket(socket)
		if err := errors.Join(err, socket.Close()); err != nil {
			return err
		}
		if inode != own {
			return fmt.Errorf("%w: descriptor %d of process %d", errForeign, fd, pid)
		}
	}
	return nil
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

// networkIsOwn is asked when nothing runs any more: nobody has gone to another namespace meanwhile.
func (d *dump) networkIsOwn(pids []int) error {
	if !d.client.InNetwork() {
		return nil
	}
	_, err := sharedNetwork(d.container.InitPid(), pids)
	return err
}
