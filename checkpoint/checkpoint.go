// Package checkpoint takes a running container apart: CRIU writes its processes, their memory and their connections into an
// image directory.
//
//  1. Begin sends the request. In CRIU's pre-dump notification, when its preparation is over and the tasks still run, the
//     cgroup is frozen, and the container's link leaves its bridge, for which query-ext-files waits: sockets come next. In
//     post-dump, when every image is written, the cgroup is frozen again, because CRIU thaws it as soon as it traces all tasks.
//  2. The Held that Begin returns stands there: nothing of the container moves, even if CRIU is killed.
//     With LeaveMemory the images lack private anonymous memory, and the caller reads it now.
//  3. Commit kills the container (or lets it run on, with LeaveRunning); Rollback lets it run on as if nothing had been.
//
// Run is all three with a manifest between, beside an older checkpoint in the directory, whose place it takes when it is whole. With
// LeaveRunning it copies memory before, while the container runs, where the kernel can tell what is written meanwhile; see
// snapshot.go. PreDump writes memory only, for a later dump to refer to. Recover lets a container run on after CRIU, or the process
// that held it, was killed.
package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/runtime"
)

var (
	// ErrNotRunning: only a running or paused container can be checkpointed. Start it first.
	ErrNotRunning = errors.New("container cannot be checkpointed")
	// ErrUnrestorable: it could be dumped, but not be made again of that. The text names what stands against it.
	ErrUnrestorable = errors.New("container could not be restored from a checkpoint")
	// ErrNeeded: another checkpoint has its older one as its parent. The text names it. The container was not touched.
	ErrNeeded = errors.New("the older checkpoint is still needed")
	// ErrNoMemTrack: the kernel cannot tell CRIU which pages a process changed (CONFIG_MEM_SOFT_DIRTY): with a page server,
	// deduplication or lazy pages there is no dump with a parent. Do without these: pages are compared with the parent's then.
	ErrNoMemTrack = errors.New("this kernel does not track changed memory (CONFIG_MEM_SOFT_DIRTY)")
	// ErrNoLazyPages: CRIU cannot use userfaultfd on this kernel. Do without lazy pages.
	ErrNoLazyPages = errors.New("this kernel has no userfaultfd for lazy pages")
)

type (
	// Error is a request that CRIU refused or failed: the log's cause, and the cure where it is known.
	Error = criu.Error
	// Client is a CRIU started ahead of time; see Start.
	Client = criu.Client
)

// Options say what may be saved and how. The zero value refuses everything that reaches out of the container.
type Options struct {
	ImagesDir  string // made if need be, and closed to everybody else then; an older checkpoint in it is replaced, by Run and PreDump at their end
	WorkDir    string // for CRIU's log; ImagesDir when empty
	ParentPath string // an earlier pre-dump, or checkpoint, relative to ImagesDir
	CRIU       string // program; see criu.Locate for the default

	LeaveRunning    bool // the container runs on after Commit
	TCPEstablished  bool // keep open TCP connections
	TCPSkipInFlight bool // drop connections that the program has not accepted yet
	TCPClose        bool // restore open connections as closed
	ExternalUnix    bool // datagram sockets whose peer is outside
	ShellJob        bool // a terminal and session of outside
	FileLocks       bool
	LinkRemap       bool // give unlinked open files a name for the time of the checkpoint
	AutoDedup       bool // punch pages out of the parent that this dump has newer
	LazyPages       bool // serve memory to a restore after the dump, by CRIU's own page server
	LeaveMemory     bool // private anonymous memory stays out of the images, and is the caller's: see Held.Left
	EmptyNetwork    bool // leave the content of the network namespace out

	Compress          Compression // of the page files; the set is then for our own restores
	Way               Way         // with LeaveMemory: this way or none; empty is the best that can be gone
	ManageCgroupsMode string      // soft, full, strict, ignore; default soft, and ignore with NoManifest where that is enough
	PageServer        string      // ADDRESS:PORT of CRIU's page server
	StatusFD          *os.File    // gets one zero byte when lazy pages can be fetched, and is closed
	GhostLimit        int64       // largest unlinked file that is saved, in bytes; 0 is DefaultGhostLimit
	// ExternalFiles are open files that the caller carries (criu.ExternalFile): neither what is in them is saved, nor what they are
	// called. A restore needs them put back into the images (image.Relink).
	ExternalFiles []string

	stage    *image.Stage // that ImagesDir is, or nil
	replaces bool         // an older set, once that is whole
	compare  bool         // with the parent, at the end: CRIU has none, and memory is left
	// byItself: CRIU saves tmpfs mounts and looks at the network from outside, as it does without us.
	byItself bool

	Client       *Client                         // started before, or nil; Begin takes it over
	BeforeFreeze func(ctx context.Context) error // called right before the tasks stop
	AfterFreeze  func(ctx context.Context) error // called right after; what nobody outside changes stays as it is from here
	NoManifest   bool                            // the images go to a peer of ours at once: it checks them, needs no cgroups, and restores them with InNetwork
	Log          *slog.Logger                    // nil discards
	LogLevel     int32                           // of CRIU: 1 errors, 2 warnings, 4 everything; 0 is 4. A debug log costs 10 ms and more of the freeze
}

// DefaultGhostLimit is how large an unlinked file may be to be saved inside the image, in bytes. CRIU's own limit of 1 MiB
// refuses most databases and log writers; what is copied is copied while the container stands still.
const DefaultGhostLimit = 256 << 20

// dumpLog is CRIU's log, in the work directory. The name is runc's.
const dumpLog = "dump.log"

func (o *Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// Run takes a whole checkpoint. When it fails the container runs on, and an older checkpoint in ImagesDir is what it was: it is
// replaced when the new one is whole. When it succeeds the container is dead, or runs on with LeaveRunning; deleting it is the
// caller's. ErrNoRoom before anything stops.
func Run(ctx context.Context, c *runtime.Container, o *Options) error {
	own := *o
	if o.compares(c) {
		own.compare, own.LeaveMemory = true, true
	}
	take := run
	if o.wantsSnapshot(ctx, c) {
		take = snapshot
	}
	if err := own.openStage(false); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", c.ID(), err)
	}
	return errors.Join(take(ctx, c, &own), own.closeStage())
}

func run(ctx context.Context, c *runtime.Container, o *Options) error {
	if o.stage != nil && o.ParentPath == "" && !o.LazyPages {
		if err := o.enoughRoom(c); err != nil {
			return fmt.Errorf("checkpoint container %s: %w", c.ID(), err)
		}
	}
	held, err := Begin(ctx, c, o)
	if err != nil {
		return err
	}
	if err := held.Fill(); err != nil {
		return errors.Join(err, held.Rollback(ctx))
	}
	if !o.LeaveRunning || o.LazyPages {
		// Nobody has the container's state but these files: they are safe on disk before it dies, and in their place before others
		// are told that its memory can be fetched.
		if err := held.complete(ctx); err != nil {
			return errors.Join(err, held.Rollback(ctx))
		}
		return held.Commit(ctx)
	}
	if err := held.Commit(ctx); err != nil {
		return err
	}
	return held.complete(ctx)
}

// complete ends a set that stays here.
func (h *Held) complete(ctx context.Context) error {
	if h.options.NoManifest {
		return nil
	}
	if err := h.manifest(ctx); err != nil {
		return err
	}
	if h.options.stage != nil {
		return h.options.stage.Publish()
	}
	return image.Sync(h.options.ImagesDir)
}

// manifest digests what CRIU wrote, and compresses it.
func (h *Held) manifest(ctx context.Context) error {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return fmt.Errorf("read kernel release: %w", err)
	}
	origin := image.Origin{
		Created: time.Now(), CRIU: h.version, Kernel: strings.TrimSpace(string(kernel)), Compress: h.options.Compress == Zstd,
	}
	if h.options.stage != nil {
		return h.options.stage.Write(ctx, origin)
	}
	return image.Write(ctx, h.options.ImagesDir, origin)
}

// prepare makes the directories, and refuses a parent that is none.
func (o *Options) prepare() error {
	if o.ImagesDir == "" {
		return errors.New("no image directory is given")
	}
	for _, dir := range []string{o.ImagesDir, o.WorkDir} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make image directory: %w", err)
		}
	}
	if o.stage == nil {
		if err := o.checkDirectory(); err != nil {
			return err
		}
	}
	if o.ParentPath != "" {
		if filepath.IsAbs(o.ParentPath) {
			return errors.New("--parent-path must be relative")
		}
		if info, err := os.Stat(filepath.Join(o.ImagesDir, o.ParentPath)); err != nil {
			return fmt.Errorf("invalid --parent-path: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("invalid --parent-path: %s is not a directory", o.ParentPath)
		}
	}
	if err := o.checkCompression(); err != nil {
		return err
	}
	if o.compare {
		if err := image.CheckBelow(filepath.Join(o.ImagesDir, o.ParentPath)); err != nil {
			return fmt.Errorf("invalid --parent-path: %w", err)
		}
	}
	return nil
}
