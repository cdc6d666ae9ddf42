package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v0.1.0.
var version = "0.1.0-dev"

// globals are the flags before the verb, and what is made of them once they are parsed.
type globals struct {
	root          string
	criu          string
	logPath       string
	logFormat     string
	debug         bool
	systemdCgroup bool
	rootless      string

	log *slog.Logger // never nil once a verb runs
}

// exitError ends the program with a code of its own. A nil err prints nothing: the verb has said it already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// run executes one command line and returns the exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	g := &globals{log: slog.New(slog.DiscardHandler)}
	root := newRootCommand(g, filepath.Base(args[0]))
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := 1
	if exit, ok := errors.AsType[*exitError](err); ok {
		if exit.err == nil {
			return exit.code
		}
		code = exit.code
	}
	g.log.Error(err.Error())
	fmt.Fprintln(os.Stderr, err)
	return code
}

func newRootCommand(g *globals, name string) *cobra.Command {
	root := &cobra.Command{
		Use:           name,
		Short:         "An OCI container runtime that can move running containers",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&g.root, "root", "/run/migrate", "root directory of the containers' state")
	flags.StringVar(&g.criu, "criu", "", "path of the CRIU program (default: MIGRATE_CRIU, PATH, /opt/migrate/criu/criu)")
	flags.StringVar(&g.logPath, "log", "", "file for log messages (default: standard error)")
	flags.StringVar(&g.logFormat, "log-format", "text", "format of log messages: text or json")
	flags.BoolVar(&g.debug, "debug", false, "log more")
	flags.BoolVar(&g.systemdCgroup, "systemd-cgroup", false, "let systemd make the cgroups")
	flags.StringVar(&g.rootless, "rootless", "auto", "ignore cgroup permission errors: true, false or auto")
	root.AddCommand(commands(g)...)
	return root
}

// commands lists every verb, each in the file of its name.
func commands(g *globals) []*cobra.Command {
	return []*cobra.Command{}
}
