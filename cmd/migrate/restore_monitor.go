package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/restore"
	"github.com/livemigrate/migrate/runtime"
)

// restoreMonitored has a monitor restore the container, and returns when it runs.
func restoreMonitored(cmd *cobra.Command, g *globals, rt *runtime.Runtime, id string, terminal bool, f *restoreFlags) error {
	if f.process.consoleSocket != "" {
		return errors.New("--console-socket and --log-file exclude each other: the monitor has the terminal")
	}
	pidFile, err := f.process.absolutePidFile()
	if err != nil {
		return err
	}
	if pidFile != "" {
		if err := cmd.Flags().Set("pid-file", pidFile); err != nil {
			return err
		}
	}
	dir, err := rt.StateDir(id)
	if err != nil {
		return err
	}
	_, err = monitor.Spawn(cmd.Context(), "/proc/self/exe", append(append(g.args(), "restore-monitor"), given(cmd)...), &monitor.Config{
		ID: id, StateDir: dir, LogFile: f.monitor.logFile, Terminal: terminal, Interactive: f.monitor.interactive,
	})
	return err
}

// newRestoreMonitorCommand is the process that restore --log-file starts; nobody else calls it.
func newRestoreMonitorCommand(g *globals) *cobra.Command {
	m := &restored{globals: g}
	cmd := monitorCommand("restore-monitor", func(ctx context.Context, config *monitor.Config) error {
		m.config = config
		return monitor.Run(ctx, config, m)
	})
	m.flags.add(cmd)
	return cmd
}

// given are the flags of this command line that the monitor's verb has too.
func given(cmd *cobra.Command) []string {
	known := newRestoreMonitorCommand(nil).Flags()
	var args []string
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if known.Lookup(flag.Name) == nil {
			return
		}
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, value := range values {
			args = append(args, "--"+flag.Name+"="+value)
		}
	})
	return args
}

// restored makes the container of a monitor from a checkpoint.
type restored struct {
	*globals
	flags     restoreFlags
	config    *monitor.Config
	prepared  *runtime.Prepared
	gate      *restore.Gate
	container *runtime.Container
}

// Create brings the container up to the gate.
func (m *restored) Create(ctx context.Context, stdio *monitor.Stdio) (pid int, err error) {
	plan, err := m.flags.complete(m.globals)
	if err != nil {
		return 0, err
	}
	rt, err := m.runtime()
	if err != nil {
		return 0, err
	}
	uid, gid, err := plan.HostUser()
	if err != nil {
		return 0, err
	}
	if err := stdio.Chown(uid, gid); err != nil {
		return 0, err
	}
	o := &m.flags.options
	o.Stdin, o.Stdout, o.Stderr, o.ConsoleSocket = stdio.Stdin, stdio.Stdout, stdio.Stderr, stdio.ConsoleSocket
	o.LogFile, o.MonitorPid = m.config.LogFile, os.Getpid()
	prepare := &runtime.PrepareOptions{PidFile: m.flags.process.pidFile, Notify: fromServiceManager()}
	m.prepared, err = restore.Prepare(ctx, rt, m.config.ID, plan, prepare, o)
	if err != nil {
		return 0, err
	}
	m.gate, err = restore.Begin(ctx, m.prepared, o)
	if err != nil {
		return 0, errors.Join(err, m.prepared.Discard(context.WithoutCancel(ctx)))
	}
	return m.gate.Pid(), nil
}

// Start lets it run.
func (m *restored) Start(ctx context.Context) (err error) {
	m.container, err = m.gate.Release(ctx)
	return err
}

func (m *restored) Delete(ctx context.Context) error {
	if m.container != nil {
		return m.container.Delete(ctx, true)
	}
	return errors.Join(m.gate.Abort(ctx), m.prepared.Discard(ctx))
}
