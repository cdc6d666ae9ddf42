package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

type restoreFlags struct {
	images      imageFlags
	bundle      bundleFlags
	process     processFlags
	options     restore.Options
	noSubreaper bool
	monitor     monitorFlags
}

// add also serves the hidden verb of the monitor.
func (f *restoreFlags) add(cmd *cobra.Command) {
	flags, o := cmd.Flags(), &f.options
	f.images.add(flags)
	flags.StringVarP(&f.bundle.bundle, "bundle", "b", "", "path to the root of the bundle directory, defaults to the current directory")
	flags.StringVar(&f.bundle.network, "network", "", "join this bridge instead of the one at the checkpoint: as with run")
	flags.BoolVar(&f.bundle.noPivot, "no-pivot", false, "do not use pivot root to jail process inside rootfs. CRIU does neither: accepted for runc's sake")
	flags.StringVar(&f.process.pidFile, "pid-file", "", "specify the file to write the process id to")
	flags.BoolVar(&o.TCPEstablished, "tcp-established", false, "allow open tcp connections")
	flags.BoolVar(&o.TCPClose, "tcp-close", false, "restore open tcp connections as closed")
	flags.BoolVar(&o.ExternalUnix, "ext-unix-sk", false, "allow external unix sockets")
	flags.BoolVar(&o.ShellJob, "shell-job", false, "allow shell jobs")
	flags.BoolVar(&o.FileLocks, "file-locks", false, "handle file locks, for safety")
	flags.BoolVar(&o.AutoDedup, "auto-dedup", false, "enable auto deduplication of memory images")
	flags.BoolVar(&o.LazyPages, "lazy-pages", false, "let it run at once: memory comes from the server on lazy-pages.socket, without one from the images")
	flags.StringVar(&o.LSMProfile, "lsm-profile", "", "Specify an LSM profile to be used during restore in the form of TYPE:NAME.")
	flags.StringVar(&o.LSMMountContext, "lsm-mount-context", "", "Specify an LSM mount context to be used during restore.")
}

func newRestoreCommand(g *globals) *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore [flags] CONTAINER",
		Short: "Make a container again from a checkpoint",
		Long:  "Make a container again from the directory that checkpoint wrote, and let it run on. In the foreground the exit status is the program's, and the container is deleted after it.",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := restoreContainer(cmd, g, args[0], &f)
			if err != nil {
				return err
			}
			return exit(status)
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.process.consoleSocket, "console-socket", "", "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal")
	f.process.addDetach(flags)
	flags.BoolVar(&f.noSubreaper, "no-subreaper", false, "disable the use of the subreaper used to reap reparented processes")
	f.monitor.add(flags)
	return cmd
}

func restoreContainer(cmd *cobra.Command, g *globals, id string, f *restoreFlags) (status int, err error) {
	if id == "" {
		return 0, errEmptyID
	}
	plan, err := f.complete(g)
	if err != nil {
		return 0, err
	}
	terminal := plan.Spec.Process != nil && plan.Spec.Process.Terminal
	rt, err := g.runtime()
	if err != nil {
		return 0, err
	}
	ctx := cmd.Context()
	if err := f.monitor.check(f.process.detach); err != nil {
		return 0, err
	}
	if f.monitor.logFile != "" {
		return 0, restoreMonitored(cmd, g, rt, id, terminal, f)
	}
	if err := f.process.check(terminal && !f.options.ShellJob); err != nil {
		return 0, err
	}
	if f.process.detach {
		f.options.ConsoleSocket = f.process.consoleSocket
		f.options.Stdin, f.options.Stdout, f.options.Stderr = os.Stdin, os.Stdout, os.Stderr
		_, err := f.restore(ctx, rt, id, plan)
		return 0, err
	}
	return restoreForeground(ctx, g, rt, id, plan, f)
}

// complete resolves the flags that need more than their value.
func (f *restoreFlags) complete(g *globals) (plan *runtime.Plan, err error) {
	o := &f.options
	o.CRIU, o.Log = g.criu, g.log
	o.Feeder = append(append([]string{"/proc/self/exe"}, g.args()...), "lazy-pages")
	o.ManageCgroupsMode = f.images.cgroupsMode
	if o.EmptyNetwork, err = f.images.emptyNetwork(); err != nil {
		return nil, err
	}
	if o.ImagesDir, o.WorkDir, err = f.images.paths(); err != nil {
		return nil, err
	}
	return f.bundle.plan()
}

func (f *restoreFlags) restore(ctx context.Context, rt *runtime.Runtime, id string, plan *runtime.Plan) (*runtime.Container, error) {
	pidFile, err := f.process.absolutePidFile()
	if err != nil {
		return nil, err
	}
	return restore.Run(ctx, rt, id, plan, &runtime.PrepareOptions{PidFile: pidFile, Notify: fromServiceManager()}, &f.options)
}

func restoreForeground(ctx context.Context, g *globals, rt *runtime.Runtime, id string, plan *runtime.Plan, f *restoreFlags) (status int, err error) {
	uid, gid, err := plan.HostUser()
	if err != nil {
		return 0, err
	}
	io, err := newStdio(plan.Spec.Process != nil && plan.Spec.Process.Terminal, uid, gid)
	if err != nil {
		return 0, err
	}
	defer io.Close()
	if !f.noSubreaper {
		if err := process.BecomeSubreaper(); err != nil {
			return 0, err
		}
	}
	o := &f.options
	o.Stdin, o.Stdout, o.Stderr = io.Stdin, io.Stdout, io.Stderr
	if o.ShellJob {
		o.Stdin = os.Stdin
	}
	if io.Console != nil {
		o.Console = func(_ context.Context, master *os.File) error { return sendMaster(io.Console, master) }
	}
	signals := newForeground(g.log)
	c, err := f.restore(ctx, rt, id, plan)
	if err != nil {
		return 0, err
	}
	// From here on the container decides when it ends: SIGINT and SIGTERM are forwarded.
	return attend(context.WithoutCancel(ctx), c, io, signals, false)
}

// sendMaster passes a terminal's master on, as a container that is new does itself.
func sendMaster(socket, master *os.File) error {
	defer master.Close()
	conn, err := net.FileConn(socket)
	if err != nil {
		return fmt.Errorf("send the console's master: %w", err)
	}
	defer conn.Close()
	return descriptor.Send(conn.(*net.UnixConn), master, "console")
}
