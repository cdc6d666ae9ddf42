package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/netlock"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/terminal"
	"github.com/livemigrate/migrate/internal/sys/tmpfs"
	"github.com/livemigrate/migrate/runtime"
)

// cancelGrace is how long CRIU has to undo a dump that was cancelled. A CRIU that is killed leaves its code in the tasks.
const cancelGrace = 30 * time.Second

// dump is a checkpoint under way: what Begin does, and Held ends.
type dump struct {
	container *runtime.Container
	options   *Options
	client    *criu.Client
	call      *criu.Call
	plug      plug         // nil where CRIU locks the network, or nobody does
	shut      func() error // of plug
	version   string       // CRIU's; empty when no manifest is wanted

	descriptors []string
	standing    []int        // all processes, since the freeze
	wasPaused   bool         // by its user: it stays so
	frozen      bool         // by us
	unplugging  chan error   // has the result of that, once it has begun
	loosening   func() error // ends what helps CRIU to seize stopped tasks, and waits for that; nil while nothing does
	locked      bool         // CRIU locks the network itself

	mounts  []byte         // of init, when CRIU was asked
	tmpfs   []tmpfs.Placed // of them, those that CRIU leaves out
	sockets *sockets       // when CRIU is in the container's network namespace

	way    Way         // of private memory
	noSkip error       // why CRIU must not skip it, even if it could
	config string      // CRIU's configuration for this request, until it is read
	pids   map[int]int // by their number in the container; of the moment of the freeze
	left   []Left      // memory that is in no file
}

// Begin dumps the container and returns with CRIU standing in post-dump: the images are complete, and every task stands
// still, held by the cgroup. While it runs the caller may already read the files that grow in ImagesDir. When it fails the
// container runs on as before; so it does when ctx ends, which CRIU is told at its next notification.
func Begin(ctx context.Context, c *runtime.Container, o *Options) (*Held, error) {
	d := &dump{container: c, options: o, client: o.Client}
	held, err := d.begin(ctx)
	if err != nil && d.way == WaySkip && o.Way == "" && !d.frozen && ctx.Err() == nil {
		// Refused with nothing stopped: its cache was replaced under it, say.
		o.log().Warn("criu does not skip memory after all", "container", c.ID(), "error", err)
		d.client, d.noSkip, d.pids = nil, err, nil
		held, err = d.begin(ctx)
	}
	if (errors.Is(err, errForeign) || errors.Is(err, errMounts)) && ctx.Err() == nil {
		// It is noticed when the container stands already, and it ran on. CRIU does all by itself this time.
		o.log().Warn("the container has just changed what it can see; dumping once more", "container", c.ID(), "error", err)
		own := *o
		own.Client, own.byItself = nil, true
		held, err = (&dump{container: c, options: &own, noSkip: d.noSkip}).begin(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint container %s: %w", c.ID(), err)
	}
	return held, nil
}

func (d *dump) begin(ctx context.Context) (*Held, error) {
	request, err := d.prepare(ctx)
	if err != nil {
		return nil, errors.Join(err, d.forget(), d.closeClient())
	}
	if d.call, err = d.client.Dump(ctx, request); err != nil {
		return nil, errors.Join(err, d.forget(), d.closeClient())
	}
	if err := d.follow(ctx); err != nil {
		return nil, errors.Join(err, d.forget(), d.release(context.WithoutCancel(ctx)))
	}
	return &Held{dump: d}, nil
}

// ready does what can be refused without CRIU, and makes the directories.
func (d *dump) ready(ctx context.Context) error {
	status, err := d.container.Status()
	if err != nil {
		return err
	}
	if status != runtime.Running && status != runtime.Restored && status != runtime.Paused {
		return fmt.Errorf("%w in %s state", ErrNotRunning, status)
	}
	if err := feed.Await(ctx, d.container.StateDir()); err != nil {
		return err
	}
	d.wasPaused = status == runtime.Paused
	if !d.wasPaused {
		if err := Settle(ctx, d.container.InitPid()); err != nil {
			return err
		}
	}
	if err := Check(d.container, d.options); err != nil {
		return err
	}
	return d.options.prepare()
}

// prepare does all that can be refused before anything of the container is touched.
func (d *dump) prepare(ctx context.Context) (*criu.Request, error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	if err := d.startClient(ctx); err != nil {
		return nil, err
	}
	if err := d.checkFeatures(ctx); err != nil {
		return nil, err
	}
	if err := d.findTmpfs(); err != nil {
		return nil, err
	}
	// As late as can be: files of an older checkpoint would be taken for part of this one.
	if err := image.Remove(d.options.ImagesDir); err != nil {
		return nil, err
	}
	state := d.container.State()
	d.descriptors = state.ExternalDescriptors
	if err := image.WriteDescriptors(d.options.ImagesDir, d.descriptors); err != nil {
		return nil, err
	}
	if state.Notify {
		if err := image.WriteNotify(d.options.ImagesDir); err != nil {
			return nil, err
		}
	}
	if state.Network != nil {
		if err := image.WriteNetwork(d.options.ImagesDir, remembered(state.Network)); err != nil {
			return nil, err
		}
	}
	if err := d.findPlug(); err != nil {
		return nil, err
	}
	return d.request()
}

// findPlug finds what cuts the container off. A namespace that an engine has made stays connected when images are made for
// anybody: who restores them may be the engine.
func (d *dump) findPlug() (err error) {
	if d.container.State().Network == nil && !d.options.NoManifest {
		return nil
	}
	d.plug, d.shut, err = openPlug(d.container)
	return err
}

// remembered is the network without what is this host's.
func remembered(network *runtime.Network) *runtime.Network {
	kept := *network
	kept.HostEnd = ""
	return &kept
}

// checkFeatures asks CRIU for what the options need, and for its version.
func (d *dump) checkFeatures(ctx context.Context) error {
	if !d.options.NoManifest {
		version, err := d.client.Version(ctx)
		if err != nil {
			return err
		}
		d.version = version
	}
	if d.options.ParentPath == "" && !d.options.LazyPages && !d.options.LeaveMemory {
		d.way = WayFull
		return nil
	}
	features, err := d.features(ctx)
	switch {
	case err != nil:
		return err
	case d.options.ParentPath != "" && !d.options.compare && !features.MemTrack:
		return ErrNoMemTrack
	case d.options.LazyPages && !features.LazyPages:
		return ErrNoLazyPages
	}
	return d.chooseWay(features)
}

// features asks CRIU what it can do. Another CRIU may have replaced its cache since it was started, from which it reads at
// each request that it has to pretend: it is started anew then.
func (d *dump) features(ctx context.Context) (criu.Features, error) {
	for try := 1; ; try++ {
		features, err := d.client.FeatureCheck(ctx)
		const tries = 3
		if err != nil || features.MemTrack || !d.client.Pretends() || try == tries {
			return features, err
		}
		err = d.client.Close()
		d.client = nil
		if err := errors.Join(err, d.startClient(ctx)); err != nil {
			return features, err
		}
	}
}

// follow answers CRIU up to post-dump, which stays open.
func (d *dump) follow(ctx context.Context) error {
	// CRIU finishes what it is at: the end of ctx becomes the answer to its next question.
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(cancelGrace, cancel) })
	defer stop()
	defer func() { _ = d.seized() }()
	for {
		n, err := d.call.Next(patient)
		if errors.Is(err, io.EOF) {
			return errors.New("criu ended its dump without post-dump")
		}
		if err != nil {
			return err
		}
		err = ctx.Err()
		if err == nil {
			err = d.notified(ctx, n.Script)
		}
		switch {
		case err != nil && n.Script == "network-unlock": // CRIU does not listen: it undoes its work already
			err = d.call.Accept(patient)
		case err != nil:
			err = d.call.Refuse(patient, err)
		case n.Script == "post-dump":
			return nil
		default:
			err = d.call.Accept(patient)
		}
		if err != nil {
			return err
		}
	}
}

// notified does what each of CRIU's notifications is good for. Those it does not know are answered yes.
func (d *dump) notified(ctx context.Context, script string) error {
	if err := d.seized(); err != nil {
		return err
	}
	switch script {
	case "pre-dump":
		if d.options.BeforeFreeze != nil {
			if err := d.options.BeforeFreeze(ctx); err != nil {
				return err
			}
		}
		d.unplug()
		// CRIU would freeze the cgroup too, but looks only every 100 ms whether it is.
		d.frozen = true
		if err := d.freeze(ctx); err != nil {
			return err
		}
		if d.options.AfterFreeze != nil {
			if err := d.options.AfterFreeze(ctx); err != nil {
				return err
			}
		}
		if err := d.claim(); err != nil {
			return err
		}
		d.loosenStopped(ctx, d.standing)
		return nil
	case "query-ext-files": // CRIU looks at sockets next
		return d.unplugged()
	case "network-unlock":
		return d.rejoin()
	case "post-dump":
		// The link has long left its bridge, unless this CRIU has asked nothing before.
		if err := d.unplugged(); err != nil || d.options.LazyPages { // it still has to kill the tasks, after it has served their memory
			return err
		}
		if err := d.container.Freeze(ctx); err != nil {
			return err
		}
		return errors.Join(d.leave(), image.RearmTimers(d.options.ImagesDir), d.saveTmpfs())
	case "status-ready":
		return d.sayReady()
	}
	return nil
}

// freeze stops the tasks and remembers the mode of their terminals.
func (d *dump) freeze(ctx context.Context) error {
	if err := d.stand(ctx); err != nil {
		return err
	}
	pids, err := d.container.Processes()
	if err != nil {
		return err
	}
	d.standing = pids
	if err := errors.Join(d.networkIsOwn(pids), d.mountsAreSame(pids)); err != nil {
		return err
	}
	terminals, err := terminal.ListBlocking(pids)
	return errors.Join(err, rememberTerminals(d.container, terminals))
}

// sayReady tells whoever waits at the other end of StatusFD.
func (d *dump) sayReady() error {
	f := d.options.StatusFD
	if f == nil {
		return nil
	}
	d.options.StatusFD = nil
	_, err := f.Write([]byte{0})
	return errors.Join(err, f.Close())
}

// release lets the container run on after a dump that failed or was refused.
func (d *dump) release(ctx context.Context) error {
	_ = d.unplugged() // it must not leave after it was put back
	blocked := reblockTerminals(d.container)
	if d.client.Killed() {
		return errors.Join(blocked, recoverContainer(ctx, d.container, !d.wasPaused), d.closeClient())
	}
	err := errors.Join(blocked, d.rejoin())
	if d.locked {
		err = errors.Join(err, clearRules(ctx, d.container))
	}
	if d.frozen && !d.wasPaused {
		err = errors.Join(err, d.container.Thaw(ctx))
	}
	return errors.Join(err, d.closeClient())
}

// clearRules removes what CRIU may have left of its network lock in the container's network namespace.
func clearRules(ctx context.Context, c *runtime.Container) error {
	pid := c.InitPid()
	if pid == 0 {
		return nil
	}
	ns, err := netns.OfProcess(pid)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it died meanwhile, and its rules with it
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return netlock.Clear(ctx, ns)
}

func (d *dump) closeClient() error {
	var err error
	if d.shut != nil {
		err = d.shut()
		d.shut = nil
	}
	if d.client == nil {
		return err
	}
	return errors.Join(err, d.client.Close())
}
