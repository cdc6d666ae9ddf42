// Package restore puts a container together from an image set: CRIU makes its processes, in the place that the runtime
// prepared.
//
//  1. Begin checks the set, and has CRIU make the tree. In CRIU's setup-namespaces notification the first process is put
//     into its cgroup and the hooks run; a terminal's master comes with orphan-pts-master; meanwhile the pages are
//     compared with the manifest.
//  2. The Gate that Begin returns stands in post-restore: every process exists and is stopped, the network is locked.
//  3. Open lets CRIU finish sockets, credentials and seccomp. In pre-resume, right before the first instruction, the
//     caller's function runs: from there on the container is here. Abort kills the tree instead.
//
// Run is all of it, with the link joining its bridge at the end.
package restore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime"
)

var (
	// ErrDamaged: a file of the set is missing, cut or altered. The text names it. Take it from a copy.
	ErrDamaged = image.ErrDamaged
	// ErrNoCheckpoint: the directory holds no complete checkpoint.
	ErrNoCheckpoint = image.ErrNoCheckpoint
	// ErrNoConsole: the set has a terminal, and the options say nothing about where its master goes.
	ErrNoConsole = errors.New("the container has a terminal: give --console-socket")
)

type (
	// Error is a request that CRIU refused or failed: the log's cause, and the cure where it is known.
	Error = criu.Error
	// Client is a CRIU started ahead of time; see Start.
	Client = criu.Client
)

// Options say where the set is and what is handed to the restored processes. Files stay the caller's.
type Options struct {
	ImagesDir string
	WorkDir   string // for CRIU's log; ImagesDir when empty
	CRIU      string // program; see criu.Locate for the default

	TCPEstablished bool // restore open TCP connections
	TCPClose       bool // restore them as closed; as at the checkpoint
	ExternalUnix   bool
	ShellJob       bool // take over the caller's terminal and session
	FileLocks      bool
	AutoDedup      bool // punch pages out of the images as they are read
	LazyPages      bool // memory comes later, over lazy-pages.socket in the work directory (ImagesDir without one); see Feeder
	TrustPages     bool // whoever serves lazy pages compares them with the manifest; here nobody does
	EmptyNetwork   bool // do not restore the content of the network namespace
	InNetwork      bool // CRIU is in the prepared network namespace; right for every set of a container with a link of ours

	ManageCgroupsMode string // soft, full, strict, ignore; default ignore where that is enough
	LSMProfile        string // TYPE:NAME
	LSMMountContext   string

	// Feeder is a program, with arguments, that calls Feed. With LazyPages, when nobody has that socket and all memory is in
	// the images, it is started to feed the container from their files: the container runs at once, and the files must stay
	// where they are until it has everything. Where the host does not allow it the restore is a whole one, and says so.
	Feeder []string

	// Stdin, Stdout and Stderr take the place of the pipes that were the container's. nil is /dev/null.
	Stdin, Stdout, Stderr *os.File
	// ConsoleSocket gets the master of the container's terminal by SCM_RIGHTS. Console is a function for the same; it
	// closes the file.
	ConsoleSocket string
	Console       func(ctx context.Context, master *os.File) error

	Client     *Client   // of Start, or nil; Begin takes it over
	Created    time.Time // of the container, for its state; zero is now
	LogFile    string    // recorded in the state, for the monitor
	MonitorPid int
	Log        *slog.Logger // nil discards
	LogLevel   int32        // of CRIU: 1 errors, 2 warnings, 4 everything; 0 is 4. A debug log costs 10 ms and more of the freeze
}

// restoreLog is CRIU's log, in the work directory. The name is runc's.
const restoreLog = "restore.log"

// Run restores a container whole. The restored init is a child of this process. When it fails nothing is left.
func Run(ctx context.Context, r *runtime.Runtime, id string, plan *runtime.Plan, prepare *runtime.PrepareOptions, o *Options) (_ *runtime.Container, err error) {
	p, err := Prepare(ctx, r, id, plan, prepare, o)
	if err != nil {
		return nil, err
	}
	gate, err := Begin(ctx, p, o)
	if err != nil {
		return nil, errors.Join(err, p.Discard(context.WithoutCancel(ctx)))
	}
	c, err := gate.Release(ctx)
	if c == nil {
		err = errors.Join(err, p.Discard(context.WithoutCancel(ctx)))
	}
	return c, err
}

// Prepare makes the place for a set: r.Prepare, with the network that the set remembers unless the plan has one.
func Prepare(ctx context.Context, r *runtime.Runtime, id string, plan *runtime.Plan, prepare *runtime.PrepareOptions, o *Options) (*runtime.Prepared, error) {
	// Before a network, a cgroup and a mount are made for nothing.
	set, err := image.Open(o.ImagesDir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("restore container %s: %w", id, err), o.closeClient())
	}
	if set.Packed() && !o.LazyPages { // else they are read when they are needed, which may be long
		if err := set.VerifyPacked(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("restore container %s: %w", id, err), o.closeClient())
		}
	}
	if plan.Network == nil && plan.Private(specs.NetworkNamespace) {
		network := &runtime.Network{}
		found, err := set.Network(network)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("restore container %s: %w", id, err), o.closeClient())
		}
		if found {
			with := *plan
			with.Network = network
			plan = &with
		}
	}
	with := runtime.PrepareOptions{}
	if prepare != nil {
		with = *prepare
	}
	// An image set of runc does not tell: there the caller's own word counts.
	notify, err := set.Notify()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("restore container %s: %w", id, err), o.closeClient())
	}
	with.Notify = with.Notify || notify
	p, err := r.Prepare(ctx, id, plan, &with)
	if err != nil {
		return nil, errors.Join(err, o.closeClient())
	}
	return p, nil
}

// Release opens the gate of a container that nobody hands over: as it runs it joins its bridge, and is announced.
func (g *Gate) Release(ctx context.Context) (*runtime.Container, error) {
	return g.Open(ctx, func() error {
		l := g.Link()
		if l == nil {
			return nil
		}
		if err := l.Join(); err != nil {
			return err
		}
		if err := l.Announce(ctx); err != nil { // it is reachable all the same, once caches have aged
			g.options.log().Warn("announce the container's addresses", "container", g.prepared.ID(), "error", err)
		}
		return nil
	})
}

func (o *Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// Start runs CRIU ahead of time, for Options.Client: the first request then costs nothing but itself. What the restored
// processes inherit is fixed here: the options' files, the prepared network namespace, and whether memory may come later.
func Start(ctx context.Context, p *runtime.Prepared, o *Options) (*Client, error) {
	client, err := start(ctx, p, o)
	if err != nil {
		return nil, err
	}
	if o.LazyPages {
		if err := keepsSmallPages(ctx, client); err != nil {
			return nil, errors.Join(err, client.Close())
		}
	}
	if err := placeCRIU(p, o, client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// errHugePages: pages that are to come later could be taken for there.
var errHugePages = errors.New("criu does not do without huge pages, as a restore ahead of memory needs it")

// keepsSmallPages makes sure of it. CRIU gives up what it was started with when it finds out about the kernel, and does not when
// it has its notes of that, which a child of it makes here.
func keepsSmallPages(ctx context.Context, client *Client) error {
	if _, err := client.FeatureCheck(ctx); err != nil {
		return err
	}
	huge, err := process.HugePages(client.Pid())
	if err == nil && huge {
		err = errHugePages
	}
	return err
}

func start(ctx context.Context, p *runtime.Prepared, o *Options) (_ *Client, err error) {
	path, err := criu.Locate(o.CRIU)
	if err != nil {
		return nil, err
	}
	files, opened, err := inherited(p, o)
	defer func() {
		for _, f := range opened {
			err = errors.Join(err, f.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	start := &criu.StartOptions{Path: path, Files: files, Foreground: o.ShellJob, Grip: true, SmallPages: o.LazyPages, Log: o.Log}
	if o.ShellJob {
		start.Stdin = o.Stdin
	}
	if o.InNetwork {
		start.NetNS = p.NetNS()
	}
	if !makesVeth(p.Plan()) {
		return criu.Start(ctx, start)
	}
	// CRIU 4.x makes the container's end by an interface number, and looks first whether its own namespace has the number:
	// it always does on a host. In an empty one it does not, and the other end is fetched from there.
	scratch, err := netns.New()
	if err != nil {
		return nil, err
	}
	var client *Client
	err = netns.Do(scratch, func() (err error) {
		client, err = criu.Start(ctx, start)
		return err
	})
	return client, errors.Join(err, scratch.Close())
}

// makesVeth: a network namespace of a user namespace's own is made by CRIU, and so is the link in it.
func makesVeth(plan *runtime.Plan) bool {
	return plan.Network != nil && plan.Private(specs.UserNamespace) && plan.Private(specs.NetworkNamespace)
}

// Order of the inherited descriptors, from criu.FirstFile on: stdio, then namespaces in the order of externalKinds.
const stdioFiles = 3

// externalKinds are the kinds of namespaces that are handed over as descriptors.
func externalKinds() []specs.LinuxNamespaceType {
	return []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.PIDNamespace}
}

// inherited lists the child's files in their fixed order, and those that were opened for it.
func inherited(p *runtime.Prepared, o *Options) (files, opened []*os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	opened = append(opened, null)
	for _, f := range []*os.File{o.Stdin, o.Stdout, o.Stderr} {
		if f == nil {
			f = null
		}
		files = append(files, f)
	}
	plan := p.Plan()
	for _, kind := range externalKinds() {
		f := null
		path := plan.NamespacePath(kind)
		switch {
		case kind == specs.NetworkNamespace && p.NetNS() != nil:
			f = p.NetNS()
		case path != "":
			if f, err = os.Open(path); err != nil {
				return nil, opened, fmt.Errorf("open %s namespace: %w", kind, err)
			}
			opened = append(opened, f)
		}
		files = append(files, f)
	}
	return files, opened, nil
}

func (o *Options) closeClient() error {
	if o.Client == nil {
		return nil
	}
	return o.Client.Close()
}

// console passes the terminal's master on.
func (o *Options) console(ctx context.Context, master *os.File) error {
	switch {
	case o.Console != nil:
		return o.Console(ctx, master)
	case o.ConsoleSocket == "":
		return errors.Join(ErrNoConsole, master.Close())
	}
	defer master.Close()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", o.ConsoleSocket)
	if err != nil {
		return fmt.Errorf("connect to console socket: %w", err)
	}
	defer conn.Close()
	if err := descriptor.Send(conn.(*net.UnixConn), master, master.Name()); err != nil {
		return fmt.Errorf("send console: %w", err)
	}
	return nil
}
