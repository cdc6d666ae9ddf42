package main

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// monitorFlags are those of the verbs that leave a monitor.
type monitorFlags struct {
	logFile     string
	interactive bool
}

func (f *monitorFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.logFile, "log-file", "", "with --detach: append the container's output to this file, which a monitor looks after")
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "with --log-file: keep standard input open, for attach")
}

func (f *monitorFlags) check(detach bool) error {
	switch {
	case f.logFile != "" && !detach:
		return errors.New("--log-file needs --detach")
	case f.interactive && f.logFile == "":
		return errors.New("--interactive needs --detach and --log-file: in the foreground standard input is open")
	}
	return nil
}

// runMonitored has a monitor make the container, and returns when its program runs.
func runMonitored(ctx context.Context, g *globals, rt *runtime.Runtime, id string, plan *runtime.Plan, f *runFlags) error {
	pidFile, err := f.process.absolutePidFile()
	if err != nil {
		return err
	}
	switch {
	case f.process.consoleSocket != "":
		return errors.New("--console-socket and --log-file exclude each other: the monitor has the terminal")
	case f.process.pidfdSocket != "":
		return errors.New("--pidfd-socket cannot be used with --log-file")
	}
	extra, listening, err := extraFiles(f.process.preserveFDs)
	if err != nil {
		return err
	}
	args := append(g.args(), "monitor", "--bundle", plan.Bundle, "--pid-file", pidFile, "--network", f.bundle.network,
		"--listening", strconv.Itoa(listening))
	if f.bundle.noPivot {
		args = append(args, "--no-pivot")
	}
	if f.bundle.noNewKeyring {
		args = append(args, "--no-new-keyring")
	}
	dir, err := rt.StateDir(id)
	if err != nil {
		return err
	}
	_, err = monitor.Spawn(ctx, "/proc/self/exe", args, &monitor.Config{
		ID: id, StateDir: dir, LogFile: f.monitor.logFile, Terminal: plan.Spec.Process.Terminal, Interactive: f.monitor.interactive,
		Extra: extra,
	})
	return err
}

// newMonitorCommand is the process that run --log-file starts; nobody else calls it.
func newMonitorCommand(g *globals) *cobra.Command {
	m := &monitored{globals: g}
	cmd := monitorCommand("monitor", func(ctx context.Context, config *monitor.Config) error {
		m.config = config
		return monitor.Run(ctx, config, m)
	})
	m.bundle.add(cmd)
	cmd.Flags().StringVar(&m.pidFile, "pid-file", "", "file for the container's pid")
	cmd.Flags().IntVar(&m.listening, "listening", 0, "how many of the container's files are sockets that it listens on")
	return cmd
}

// monitorCommand is a verb whose process is a monitor, told what to do over an inherited descriptor.
func monitorCommand(use string, run func(context.Context, *monitor.Config) error) *cobra.Command {
	var configFD int
	cmd := &cobra.Command{
		Use:    use,
		Hidden: true,
		Args:   exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := monitor.ReadConfig(configFD)
			if err != nil {
				return err
			}
			return run(cmd.Context(), config)
		},
	}
	cmd.Flags().IntVar(&configFD, "config-fd", 3, "descriptor with the monitor's configuration")
	return cmd
}

// monitored makes the container of a monitor.
type monitored struct {
	*globals
	bundle    bundleFlags
	pidFile   string
	listening int
	config    *monitor.Config
	container *runtime.Container
}

func (m *monitored) Create(ctx context.Context, stdio *monitor.Stdio) (pid int, err error) {
	plan, err := m.bundle.plan()
	if err != nil {
		return 0, err
	}
	rt, err := m.runtime()
	if err != nil {
		return 0, err
	}
	console, err := dial(stdio.ConsoleSocket)
	if err != nil {
		return 0, err
	}
	if console != nil {
		defer console.Close()
	}
	uid, gid, err := plan.HostRoot()
	if err != nil {
		return 0, err
	}
	if err := stdio.Chown(uid, gid); err != nil {
		return 0, err
	}
	var extra []*os.File
	for _, fd := range m.config.Inherited.Extra {
		extra = append(extra, os.NewFile(uintptr(fd), "file of the container"))
	}
	defer func() { // else what the container closes would stay open here
		for _, file := range extra {
			file.Close()
		}
	}()
	m.container, err = rt.Create(ctx, m.config.ID, plan, &runtime.CreateOptions{
		ExtraFiles: extra, ListenFDs: m.listening,
		Stdin: stdio.Stdin, Stdout: stdio.Stdout, Stderr: stdio.Stderr, ConsoleSocket: console,
		PidFile: m.pidFile, LogFile: m.config.LogFile, MonitorPid: os.Getpid(), Notify: fromServiceManager(),
	})
	if err != nil {
		return 0, err
	}
	return m.container.State().InitProcessPid, nil
}

// Start leaves the relay to the end of this process.
func (m *monitored) Start(ctx context.Context) error {
	_, err := startNotifying(ctx, m.container, m.container.State().InitProcessPid, m.log)
	return err
}

func (m *monitored) Delete(ctx context.Context) error { return m.container.Delete(ctx, true) }
