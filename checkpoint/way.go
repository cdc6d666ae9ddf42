package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime"
)

// Way is what becomes of private anonymous memory in a dump.
type Way string

const (
	// WaySkip gives CRIU a parent that claims to have all pages. It neither reads nor copies them.
	WaySkip Way = "skip"
	// WayLazy has CRIU take the pages into pipes, for a page server that is not there: 40 to 60 ms a GB.
	WayLazy Way = "lazy"
	// WayFull leaves nothing out: CRIU writes the pages into the images.
	WayFull Way = "full"
)

// ErrWay: the way that was asked for cannot be gone here. The text says why.
var ErrWay = errors.New("this container cannot be dumped that way")

// chooseWay finds the best way that can be gone. What forbids a better one is logged.
func (d *dump) chooseWay(features criu.Features) error {
	d.way = WayFull
	o := d.options
	if !o.LeaveMemory {
		return nil
	}
	if o.ParentPath != "" && !o.compare || o.LazyPages || o.PageServer != "" || o.AutoDedup {
		return fmt.Errorf("%w: memory that is left goes with no parent, page server or deduplication", ErrWay)
	}
	var obstacles []error
	for _, way := range []struct {
		name  Way
		check func(criu.Features) error
	}{{WaySkip, d.canSkip}, {WayLazy, d.canLazy}, {WayFull, func(criu.Features) error { return nil }}} {
		if o.Way != "" && o.Way != way.name {
			continue
		}
		err := way.check(features)
		if err == nil {
			d.way = way.name
			o.log().Debug("way of private memory", "container", d.container.ID(), "way", d.way, "obstacles", errors.Join(obstacles...))
			return nil
		}
		obstacles = append(obstacles, fmt.Errorf("%s: %w", way.name, err))
	}
	return fmt.Errorf("%w: %w", ErrWay, errors.Join(obstacles...))
}

// canSkip: CRIU must track memory, or pretend to.
func (d *dump) canSkip(features criu.Features) error {
	switch {
	case d.noSkip != nil:
		return d.noSkip
	case !features.MemTrack:
		return ErrNoMemTrack
	}
	return nil
}

// canLazy: CRIU holds all pages in pipes, of which it needs many.
func (d *dump) canLazy(features criu.Features) error {
	if !features.LazyPages {
		return ErrNoLazyPages
	}
	pids, err := d.container.Processes()
	if err != nil {
		return err
	}
	const atOnce = 1024 // pages in a pipe
	const aside = 256   // descriptors of CRIU's own
	need := uint64(aside)
	for _, pid := range pids {
		status, err := process.ReadStatus(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return err
		}
		need += 2 * (status.Anonymous/memory.PageSize/atOnce + 2)
	}
	limit, err := process.RaiseFiles(d.client.Pid())
	if err != nil {
		return err
	}
	if need > limit {
		return fmt.Errorf("criu needs %d open files for the container's memory, and may have %d: raise RLIMIT_NOFILE (LimitNOFILE=)", need, limit)
	}
	return nil
}

// Start runs CRIU ahead of time, for Options.Client: the first request then costs nothing but itself.
func Start(ctx context.Context, c *runtime.Container, o *Options) (*Client, error) {
	path, err := criu.Locate(o.CRIU)
	if err != nil {
		return nil, err
	}
	start := &criu.StartOptions{Path: path, Foreground: o.ShellJob, Limits: true, Log: o.log()}
	if _, err := o.mayEnter(c); err != nil {
		o.log().Debug("criu stays in the host's network namespace", "container", c.ID(), "cause", err)
	} else {
		if start.NetNS, err = netns.OfProcess(c.InitPid()); err != nil {
			return nil, err
		}
		defer start.NetNS.Close()
	}
	if !o.LeaveMemory {
		return criu.Start(ctx, start)
	}
	dead, err := deadSocket()
	if err != nil {
		return nil, err
	}
	defer dead.Close()
	start.Files = []*os.File{dead}
	if o.Way == "" || o.Way == WaySkip {
		client, err := criu.StartTracked(ctx, start)
		if !errors.Is(err, criu.ErrNoPretence) {
			return client, err
		}
		o.log().Info("criu will look at all memory", "cause", err)
	}
	return criu.Start(ctx, start)
}

// startClient is Start for this container: one that has no mount namespace of its own must not be dumped from another than
// the host's.
func (d *dump) startClient(ctx context.Context) error {
	var err error
	if d.client == nil {
		o := *d.options
		if d.noSkip != nil {
			o.Way = WayLazy
		}
		if d.client, err = Start(ctx, d.container, &o); err != nil {
			return err
		}
	}
	if d.client.InNetwork() {
		var foreign error
		if d.sockets, foreign = d.options.mayEnter(d.container); foreign != nil { // since it was started
			d.options.log().Debug("criu goes back to the host's network namespace", "container", d.container.ID(), "cause", foreign)
			err = d.client.Close()
			d.client = nil
			return errors.Join(err, d.startClient(ctx))
		}
	}
	if !d.client.Pretends() || d.container.Plan().Private(specs.MountNamespace) {
		return nil
	}
	d.noSkip = errors.New("the container is in the host's mount namespace")
	err = d.client.Close()
	d.client = nil
	return errors.Join(err, d.startClient(ctx))
}

// deadSocket is a connection whose other end is gone: a page server that is given it ends at once. CRIU starts one after
// every lazy dump, also one that was refused, and would otherwise wait for a client for ever.
func deadSocket() (*os.File, error) {
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(ends[1]), "page server's client"), os.NewSyscallError("close", syscall.Close(ends[0]))
}
