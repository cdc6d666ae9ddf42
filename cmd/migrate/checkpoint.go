package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/livemigrate/migrate/checkpoint"
)

type checkpointFlags struct {
	images   imageFlags
	options  checkpoint.Options
	preDump  bool
	statusFD int
	compress string
}

func newCheckpointCommand(g *globals) *cobra.Command {
	var f checkpointFlags
	cmd := &cobra.Command{
		Use:   "checkpoint [flags] CONTAINER",
		Short: "Save a running container to a directory",
		Long:  "Save a running container, its processes, memory and connections, to a directory, from which restore makes it again.",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return saveContainer(cmd.Context(), g, args[0], &f)
		},
	}
	flags, o := cmd.Flags(), &f.options
	f.images.add(flags)
	flags.StringVar(&o.ParentPath, "parent-path", "", "an earlier pre-dump or checkpoint to build on, relative to the image path")
	flags.BoolVar(&o.LeaveRunning, "leave-running", false, "leave the process running after checkpointing")
	flags.BoolVar(&o.TCPEstablished, "tcp-established", false, "allow open tcp connections")
	flags.BoolVar(&o.TCPSkipInFlight, "tcp-skip-in-flight", false, "skip in-flight tcp connections")
	flags.BoolVar(&o.TCPClose, "tcp-close", false, "save open tcp connections as closed")
	flags.BoolVar(&o.LinkRemap, "link-remap", false, "allow one to link unlinked files back when possible")
	flags.BoolVar(&o.ExternalUnix, "ext-unix-sk", false, "allow external unix sockets")
	flags.BoolVar(&o.ShellJob, "shell-job", false, "allow shell jobs")
	flags.BoolVar(&o.LazyPages, "lazy-pages", false, "use userfaultfd to lazily restore memory pages")
	flags.IntVar(&f.statusFD, "status-fd", -1, "criu writes \\0 to this FD once lazy-pages is ready")
	flags.StringVar(&o.PageServer, "page-server", "", "ADDRESS:PORT of the page server")
	flags.BoolVar(&o.FileLocks, "file-locks", false, "handle file locks, for safety")
	flags.BoolVar(&f.preDump, "pre-dump", false, "dump container's memory information only, leave the container running after this")
	flags.BoolVar(&o.AutoDedup, "auto-dedup", false, "enable auto deduplication of memory images")
	flags.StringVar(&f.compress, "compress", string(checkpoint.NoCompression), "none (any runtime restores it) or zstd (smaller; only migrate restore takes it)")
	flags.Int64Var(&o.GhostLimit, "ghost-limit", checkpoint.DefaultGhostLimit, "largest unlinked open file to save, in bytes")
	return cmd
}

func saveContainer(ctx context.Context, g *globals, id string, f *checkpointFlags) error {
	c, err := g.container(id)
	if err != nil {
		return err
	}
	o := &f.options
	o.CRIU, o.Log = g.criu, g.log
	o.ManageCgroupsMode, o.Compress = f.images.cgroupsMode, checkpoint.Compression(f.compress)
	if o.EmptyNetwork, err = f.images.emptyNetwork(); err != nil {
		return err
	}
	if o.ImagesDir, o.WorkDir, err = f.images.paths(); err != nil {
		return err
	}
	if f.statusFD >= 0 {
		o.StatusFD = os.NewFile(uintptr(f.statusFD), "status-fd")
		if _, err := o.StatusFD.Stat(); err != nil {
			return fmt.Errorf("invalid --status-fd argument %d: %w", f.statusFD, err)
		}
	}
	if f.preDump {
		return checkpoint.PreDump(ctx, c, o)
	}
	if err := checkpoint.Run(ctx, c, o); err != nil || o.LeaveRunning {
		return err
	}
	return c.Delete(context.WithoutCancel(ctx), true)
}

// imageFlags are those that checkpoint and restore share.
type imageFlags struct {
	imagePath   string
	workPath    string
	cgroupsMode string
	emptyNS     []string
}

func (f *imageFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.imagePath, "image-path", "", "path of the image files (default: checkpoint in the current directory)")
	flags.StringVar(&f.workPath, "work-path", "", "path for saving work files and logs (default: the image path)")
	flags.StringVar(&f.cgroupsMode, "manage-cgroups-mode", "", "cgroups mode: soft|full|strict|ignore (default: the runtime places the processes)")
	flags.StringArrayVar(&f.emptyNS, "empty-ns", nil, "create a namespace, but don't restore its properties: network")
}

func (f *imageFlags) paths() (images, work string, err error) {
	images, work = f.imagePath, f.workPath
	if images == "" {
		images = "checkpoint"
	}
	if images, err = filepath.Abs(images); err != nil || work == "" {
		return images, "", err
	}
	work, err = filepath.Abs(work)
	return images, work, err
}

func (f *imageFlags) emptyNetwork() (bool, error) {
	for _, ns := range f.emptyNS {
		if ns != "network" {
			return false, errors.New("namespace " + ns + " is not supported by --empty-ns: only network is")
		}
	}
	return len(f.emptyNS) > 0, nil
}
