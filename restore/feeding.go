package restore

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/sys/hole"
	"github.com/livemigrate/migrate/internal/sys/socket"
	"github.com/livemigrate/migrate/runtime"
)

// feeding is memory that comes from the images' files after the container runs, by a process that outlives this one.
//
//	state directory/lazy    CRIU's work directory: the socket of lazy pages, where no other server of them is in the way;
//	                        links that put CRIU's log and statistics where the caller wants them
//	state directory/staged  the images, where CRIU must be given other page maps
type feeding struct {
	lazy   *image.Lazy
	work   string
	images string
	staged string // "" where images is the caller's
	line   net.Conn
	hears  *json.Decoder
}

// Names in a container's state directory.
const (
	lazyDir   = "lazy"
	stagedDir = "staged"
)

// feedLog is the log of the feeding process, beside CRIU's.
const feedLog = "lazy-pages.log"

// statsFile is CRIU's, which engines read.
const statsFile = "stats-restore"

// serveLazyPages finds out who is going to serve the lazy pages: a server that answers, or else a process of ours, if the
// memory is in the files. Where neither can be the restore is a whole one.
func (a *attempt) serveLazyPages(ctx context.Context) error {
	work := cmp.Or(a.options.WorkDir, a.options.ImagesDir)
	a.lazyPages = true
	served, err := socket.Bound(filepath.Join(work, feed.SocketName))
	if err != nil {
		return err
	}
	if served || len(a.options.Feeder) == 0 {
		return awaitLazyPages(ctx, work, lazyPagesTime)
	}
	lazy, err := a.set.Lazy()
	if errors.Is(err, image.ErrElsewhere) {
		return awaitLazyPages(ctx, work, lazyPagesTime)
	}
	if err != nil {
		return err
	}
	if err := a.canFeed(lazy); err != nil {
		a.options.log().Warn("the container's memory is restored before it runs", "container", a.prepared.ID(), "why", err)
		a.lazyPages = false
		return nil
	}
	a.feeding = &feeding{lazy: lazy, images: a.options.ImagesDir}
	return a.feeding.start(ctx, a.prepared, a.options, work, a.set.Packed())
}

func (a *attempt) canFeed(lazy *image.Lazy) error {
	user := false
	for _, ns := range a.plan.Spec.Linux.Namespaces {
		user = user || ns.Type == specs.UserNamespace
	}
	if err := feed.Possible(user); err != nil {
		return err
	}
	if user && lazy.NeedsStage() && !a.set.Packed() {
		return fmt.Errorf("%w: in a user namespace, on top of a parent", feed.ErrImpossible)
	}
	for _, f := range lazy.Files {
		if f.Known != nil && f.Known.Chunk%memory.PageSize != 0 {
			return fmt.Errorf("%w: the digests are of parts of pages", feed.ErrImpossible)
		}
	}
	return nil
}

// start makes the directories and the process, and returns when that listens. packed: CRIU is given other images anyhow.
func (f *feeding) start(ctx context.Context, p *runtime.Prepared, o *Options, work string, packed bool) error {
	f.work = filepath.Join(p.StateDir(), lazyDir)
	if err := os.Mkdir(f.work, 0o700); err != nil {
		return fmt.Errorf("feed memory: %w", err)
	}
	work, err := filepath.Abs(work)
	if err != nil {
		return fmt.Errorf("feed memory: %w", err)
	}
	for _, name := range []string{restoreLog, statsFile} {
		if err := os.Symlink(filepath.Join(work, name), filepath.Join(f.work, name)); err != nil {
			return fmt.Errorf("feed memory: %w", err)
		}
	}
	if f.lazy.NeedsStage() && !packed {
		f.staged = filepath.Join(p.StateDir(), stagedDir)
		f.images = f.staged
		if err := f.lazy.Stage(f.staged); err != nil {
			return err
		}
	}
	if err := f.spawn(p, o, filepath.Join(work, feedLog)); err != nil {
		return fmt.Errorf("feed memory: %w", err)
	}
	return f.hear(ctx, func(w feedWord) bool { return w.Ready })
}

func (f *feeding) spawn(p *runtime.Prepared, o *Options, logPath string) (err error) {
	line, theirs, err := socket.Pair()
	if err != nil {
		return err
	}
	f.line, f.hears = line, json.NewDecoder(line)
	files := []*os.File{theirs}
	defer func() {
		for _, file := range files {
			file.Close()
		}
	}()
	layout, err := f.layout()
	if err != nil {
		return err
	}
	files = append(files, layout)
	order := feedOrder{Container: p.ID(), StateDir: p.StateDir(), Dir: f.work}
	for _, part := range f.lazy.Files {
		if part.Pages == 0 {
			continue
		}
		file, err := os.Open(part.Path)
		if err != nil {
			return err
		}
		files = append(files, file)
		sums, err := digests(part.Known)
		if err != nil {
			return err
		}
		ordered := feedFile{Slot: part.First, Sums: sums}
		if sums != nil {
			ordered.Chunk = part.Known.Chunk
			ordered.Size, ordered.Frames = part.Known.Size, part.Known.Frames
		}
		order.Files = append(order.Files, ordered)
	}
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	files = append(files, log)
	child := exec.Command(o.Feeder[0], o.Feeder[1:]...) //nolint:noctx // it outlives whoever starts it, and every context here
	child.Args[0] = os.Args[0]
	child.ExtraFiles = files[:len(files)-1]
	child.Stderr = log
	child.Dir = "/"
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return err
	}
	go func() { _ = child.Wait() }() // it may outlive us: then its new parent reaps it
	return json.NewEncoder(f.line).Encode(order)
}

// layout is the file that tells the feeder what is where.
func (f *feeding) layout() (*os.File, error) {
	l := &feed.Layout{Spaces: make([]feed.Space, 0, len(f.lazy.Spaces))}
	for _, s := range f.lazy.Spaces {
		space := feed.Space{Pid: s.VPid, Runs: make([]feed.Run, 0, len(s.Runs))}
		for _, r := range s.Runs {
			space.Runs = append(space.Runs, feed.Run{Range: r.Range, Slot: r.Slot})
		}
		l.Spaces = append(l.Spaces, space)
	}
	text, err := l.Encode()
	if err != nil {
		return nil, err
	}
	file, err := hole.Memory(feed.LayoutName)
	if err != nil {
		return nil, err
	}
	if _, err := file.Write(text); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func digests(known *image.Pages) ([]byte, error) {
	if known == nil {
		return nil, nil
	}
	var sums []byte
	for _, text := range known.Digests {
		sum, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		sums = append(sums, sum...)
	}
	return sums, nil
}

// feedPatience bounds the wait for the feeding process to start, and to take what CRIU has sent it already.
const feedPatience = 10 * time.Second

// hear waits until the process says what is wanted.
func (f *feeding) hear(ctx context.Context, wanted func(feedWord) bool) error {
	stop := context.AfterFunc(ctx, func() { _ = f.line.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := f.line.SetReadDeadline(time.Now().Add(feedPatience)); err != nil {
		return fmt.Errorf("feed memory: %w", err)
	}
	var w feedWord
	switch err := f.hears.Decode(&w); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("feed memory: the process that does it says nothing: %w", err)
	case w.Error != "":
		return errors.New(w.Error)
	case !wanted(w):
		return errors.New("feed memory: the process that does it is at another point")
	}
	return nil
}

// hold returns when the memory of every task is held: without that one would run on zeros.
func (f *feeding) hold(ctx context.Context) error {
	return f.hear(ctx, func(w feedWord) bool { return w.Held })
}

// close leaves the process alone. Where the container does not run its processes are dead: then that ends too.
func (f *feeding) close() error {
	var err error
	if f.line != nil {
		err = f.line.Close()
	}
	err = errors.Join(err, os.RemoveAll(f.work))
	if f.staged != "" {
		err = errors.Join(err, os.RemoveAll(f.staged))
	}
	return err
}
