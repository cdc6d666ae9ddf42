package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/sys/scratch"
	"github.com/livemigrate/migrate/runtime"
)

// attempt is a restore under way: what Begin does, and Gate ends.
type attempt struct {
	prepared *runtime.Prepared
	options  *Options
	plan     *runtime.Plan
	set      *image.Set
	client   *criu.Client
	call     *criu.Call

	descriptors []string
	emptyNet    bool
	shared      []func() error   // take the images back from the user namespace's root
	lazyPages   bool             // memory comes after the restore
	feeding     *feeding         // from the images; nil when it does not, or somebody else sees to it
	unpacked    *scratch.Dir     // the set that CRIU reads, where it can't read the one that there is
	verified    chan error       // gets the result of the page check, once
	pid         int              // of the tree's root; 0 before CRIU made it
	cgroups     string           // that CRIU is in, where it makes the cgroup namespace
	expelled    chan error       // has the result of taking it out of them, once that has begun
	tmpfs       []*criu.ExtMount // mounts that CRIU has left out of the set
	netns       *os.File         // of a link that CRIU made; to announce from
	undoFreeze  func() error     // nil while the tasks are not frozen
	over        bool             // released
}

// Begin makes the container's processes in the place that p is, and returns with CRIU standing in post-restore: they exist,
// stopped, and every page was right. Nothing of the container has run. When it fails every process is dead and reaped; p is
// still the caller's to discard. The process that calls Begin is the parent of the container's init.
func Begin(ctx context.Context, p *runtime.Prepared, o *Options) (*Gate, error) {
	a := &attempt{prepared: p, options: o, plan: p.Plan(), client: o.Client}
	gate, err := a.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("restore container %s: %w", p.ID(), err)
	}
	return gate, nil
}

func (a *attempt) begin(ctx context.Context) (*Gate, error) {
	request, err := a.prepare(ctx)
	if err != nil {
		return nil, errors.Join(err, a.release())
	}
	if a.call, err = a.client.Restore(ctx, request); err != nil {
		return nil, errors.Join(err, a.release())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.verify(ctx)
	if err := a.follow(ctx); err != nil {
		cancel()
		return nil, errors.Join(err, a.destroy(), a.release())
	}
	return &Gate{attempt: a}, nil
}

// prepare does all that can be refused before there is a process.
func (a *attempt) prepare(ctx context.Context) (*criu.Request, error) {
	var err error
	if a.set, err = image.Open(a.options.ImagesDir); err != nil {
		return nil, err
	}
	if a.descriptors, err = a.set.Descriptors(); err != nil {
		return nil, err
	}
	if a.options.AutoDedup {
		// CRIU takes pages out of the files as it reads them: there would be nothing to compare with.
		if err := a.set.VerifyPages(ctx); err != nil {
			return nil, err
		}
	}
	if a.client == nil {
		if a.client, err = Start(ctx, a.prepared, a.options); err != nil {
			return nil, err
		}
	}
	if a.options.LazyPages {
		if err := a.serveLazyPages(ctx); err != nil {
			return nil, err
		}
	}
	if a.set.Packed() {
		if err := a.unpack(ctx); err != nil {
			return nil, err
		}
	}
	if err := a.shareImages(); err != nil {
		return nil, err
	}
	if err := a.makeTmpfs(); err != nil {
		return nil, err
	}
	return a.request()
}

// shareImages lets the root of a user namespace read the images: CRIU opens them as it.
func (a *attempt) shareImages() error {
	uid, gid, err := a.plan.HostRoot()
	if err != nil || uid == 0 && gid == 0 {
		return err
	}
	dirs := []string{a.set.Dir}
	for _, set := range a.set.Parents {
		dirs = append(dirs, set.Dir)
	}
	if a.unpacked != nil {
		dirs = []string{a.unpacked.Path()}
	}
	for _, dir := range dirs {
		back, err := image.ShareWith(dir, gid)
		if err != nil {
			return err
		}
		a.shared = append(a.shared, back)
	}
	return nil
}

// verify compares the pages while CRIU reads them.
func (a *attempt) verify(ctx context.Context) {
	a.verified = make(chan error, 1)
	if a.options.AutoDedup || a.options.TrustPages || a.unpacked != nil {
		a.verified <- nil
		return
	}
	verify := a.set.VerifyPages
	if a.feeding != nil {
		verify = a.feeding.lazy.VerifyEager
	}
	go func() { a.verified <- verify(ctx) }()
}

// follow answers CRIU up to post-restore, which stays open.
func (a *attempt) follow(ctx context.Context) error {
	for {
		n, err := a.call.Next(ctx)
		if errors.Is(err, io.EOF) {
			return errors.New("criu ended its restore without post-restore")
		}
		if err != nil {
			return err
		}
		err = a.notified(ctx, n)
		switch {
		case err != nil:
			err = a.call.Refuse(ctx, err)
		case n.Script == "post-restore":
			return nil
		default:
			err = a.call.Accept(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// notified does what each of CRIU's notifications is good for. Those it does not know are answered yes.
func (a *attempt) notified(ctx context.Context, n *criu.Notification) error {
	switch n.Script {
	case "setup-namespaces": // the first process exists, in its namespaces, and has no children yet
		a.pid = n.Pid
		return a.setUp(ctx)
	case "post-setup-namespaces":
		return a.adoptVeth()
	case "orphan-pts-master":
		for _, master := range n.Files {
			if err := a.options.console(ctx, master); err != nil {
				return err
			}
		}
	case "post-restore":
		if a.pid == 0 { // a container without a namespace of its own
			a.pid = n.Pid
			if err := a.setUp(ctx); err != nil {
				return err
			}
		}
		a.expelCRIU()
		return errors.Join(a.checkNetwork(), <-a.verified)
	}
	return nil
}

// errOutside: the processes are in a network that is not theirs, and do not run.
var errOutside = errors.New("the restored container is not in the network namespace that was prepared for it")

// checkNetwork: the set may take CRIU's own network namespace for the container's.
func (a *attempt) checkNetwork() error {
	prepared := a.prepared.NetNS()
	if prepared == nil {
		return nil
	}
	want, err := netns.Inode(prepared)
	if err != nil {
		return err
	}
	got, err := netns.InodeOfProcess(a.pid)
	if err == nil && got != want {
		err = errOutside
	}
	return err
}

// placeInit has the first process in the container's cgroups, where it was born if CRIU is there.
func (a *attempt) placeInit() error {
	if a.cgroups != "" {
		if born, err := cgroupsOf(a.pid); err != nil || born == a.cgroups {
			return err
		}
	}
	return a.prepared.PlaceInit(a.pid)
}

func (a *attempt) setUp(ctx context.Context) error {
	if err := a.placeInit(); err != nil {
		return err
	}
	if a.plan.Private(specs.PIDNamespace) {
		if err := a.keepPidsFree(); err != nil { // all the same it is likely to go well
			a.options.log().Warn("the restored processes' pids may be taken for a moment", "error", err)
		}
	}
	if a.emptyNet {
		// As the runtime leaves a new one: connections over the loopback come back then.
		ns, err := netns.OfProcess(a.pid)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := link.LoopbackUp(ns); err != nil {
			return err
		}
	}
	return a.prepared.RunHooks(ctx, a.pid)
}

// keepPidsFree has pids given from behind those of the set, as they would have been. CRIU starts processes of no such number
// in the namespace while it restores (one for each pidfd of a process that has ended, which any Go program holds that starts
// children): they would take the low numbers of threads that it has yet to make, and the restore would fail with EEXIST.
func (a *attempt) keepPidsFree() error {
	highest, err := image.HighestPid(a.options.ImagesDir)
	if err != nil {
		return err
	}
	return process.SetLastPid(a.pid, highest)
}

// adoptVeth takes over the link that CRIU made, whose other end is where CRIU itself is.
func (a *attempt) adoptVeth() (err error) {
	if !makesVeth(a.plan) {
		return nil
	}
	scratch, err := netns.OfProcess(a.client.Pid())
	if err != nil {
		return err
	}
	defer scratch.Close()
	ns, err := netns.OfProcess(a.pid)
	if err != nil {
		return err
	}
	l, err := link.Adopt(scratch, ns, a.prepared.ID(), a.plan.Network)
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	a.prepared.SetLink(l)
	a.netns = ns
	return nil
}

// release closes what the attempt holds besides processes.
func (a *attempt) release() error {
	_ = a.criuExpelled()
	var err error
	a.over = true
	if a.client != nil {
		err = a.client.Close()
		if a.client.Killed() {
			err = errors.Join(err, RemoveYards(cmp.Or(a.options.WorkDir, a.options.ImagesDir)))
		}
	}
	for _, back := range a.shared {
		err = errors.Join(err, back())
	}
	a.shared = nil
	if a.netns != nil {
		err = errors.Join(err, a.netns.Close())
		a.netns = nil
	}
	if a.unpacked != nil {
		err = errors.Join(err, a.unpacked.Close())
		a.unpacked = nil
	}
	if a.feeding != nil {
		err = errors.Join(err, a.feeding.close())
	}
	return err
}
