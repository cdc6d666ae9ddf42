package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strings"

	"github.com/livemigrate/migrate/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
)

// version and commit are set by the linker: -X main.version=v0.1.0.
var (
	version = "0.1.0-dev"
	commit  = ""
)

// globals are the flags before the verb, and what is made of them once they are parsed.
type globals struct {
	root          string
	criu          string
	logPath       string
	logFormat     string
	debug         bool
	systemdCgroup bool
	networkHook   string // of commands that move containers
	rootless      string

	rootSet bool          // --root was given
	log     *slog.Logger  // never nil once a verb runs
	signals chan struct{} // closed when interrupts are taken; nil when the verb takes none
}

// runtime opens the root directory that the flags name. What is begun from here on is undone when we are interrupted.
func (g *globals) runtime() (*runtime.Runtime, error) {
	if g.signals != nil {
		<-g.signals
	}
	return runtime.Open(&runtime.Options{Root: g.root, SystemdCgroup: g.systemdCgroup, Rootless: g.rootless, Log: g.log})
}

// container loads the container that a verb is about.
func (g *globals) container(id string) (*runtime.Container, error) {
	if id == "" {
		return nil, errEmptyID
	}
	rt, err := g.runtime()
	if err != nil {
		return nil, err
	}
	return rt.Load(id)
}

var errEmptyID = errors.New("container id cannot be empty")

// args repeats the global flags for a process of ours that works on the same root.
func (g *globals) args() []string {
	args := []string{"--root", g.root, "--rootless", g.rootless, "--log-format", g.logFormat}
	if g.criu != "" {
		args = append(args, "--criu", g.criu)
	}
	if g.logPath != "" {
		args = append(args, "--log", g.logPath)
	}
	if g.debug {
		args = append(args, "--debug")
	}
	if g.systemdCgroup {
		args = append(args, "--systemd-cgroup")
	}
	return args
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

// exit is the exitError of a program's status; none for success.
func exit(status int) error {
	if status == 0 {
		return nil
	}
	return &exitError{code: status}
}

// run executes one command line and returns the exit code.
func run(args []string) int {
	g := &globals{}
	root := newRootCommand(g, filepath.Base(args[0]))
	line, err := canonical(root, args[1:])
	if err == nil {
		root.SetArgs(line)
		err = root.ExecuteContext(context.Background())
	}
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
	if g.log == nil { // the command line is wrong, which is found before a verb runs
		log, logErr := openLog(g.logPath, g.logFormat, g.debug)
		if logErr != nil { // that may be the very error
			g.logPath = ""
			log, _ = openLog("", "text", false)
		}
		g.log = log
	}
	g.log.Error(err.Error())
	if g.logPath != "" {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

func newRootCommand(g *globals, name string) *cobra.Command {
	root := &cobra.Command{
		Use:           name,
		Short:         "Open Container Initiative runtime that can move running containers to other hosts",
		Version:       strings.TrimPrefix(version, "v"),
		SilenceUsage:  true,
		SilenceErrors: true,
		// Flags before the verb are the program's, even where a verb has one of the same name: spec --rootless.
		TraverseChildren: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if _, reads := cmd.Annotations[readsOnly]; !reads {
				g.interruptible(cmd)
			}
			return g.prepare(cmd)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate(versionText(name))
	root.SetHelpFunc(printHelp)
	root.SetHelpCommand(newHelpCommand())
	root.CompletionOptions.DisableDefaultCmd = true
	flags := root.PersistentFlags()
	flags.SortFlags = false
	flags.BoolVar(&g.debug, "debug", false, "log more, and where in the program it comes from")
	flags.StringVar(&g.root, "root", "", "root directory of the containers' state; should be on tmpfs (default /run/migrate, rootless $XDG_RUNTIME_DIR/migrate)")
	flags.StringVar(&g.criu, "criu", "", "path of the CRIU program (default: MIGRATE_CRIU, PATH, /opt/migrate/criu/criu)")
	flags.StringVar(&g.logPath, "log", "", "file for log messages (default: standard error)")
	flags.StringVar(&g.logFormat, "log-format", "text", "format of log messages: text or json")
	flags.BoolVar(&g.systemdCgroup, "systemd-cgroup", false, "let systemd make the cgroups; cgroupsPath is then \"slice:prefix:name\"")
	flags.StringVar(&g.rootless, "rootless", "auto", "ignore cgroup permission errors: true, false or auto")
	root.Flags().BoolP("version", "v", false, "print the version")
	root.AddCommand(commands(g)...)
	root.InitDefaultHelpCmd()
	addHelpFlags(root)
	return root
}

// prepare completes the globals before the verb runs.
func (g *globals) prepare(cmd *cobra.Command) error {
	log, err := openLog(g.logPath, g.logFormat, g.debug)
	if err != nil {
		return err
	}
	g.log = log
	g.rootSet = cmd.Root().PersistentFlags().Changed("root")
	if g.rootSet && g.root == "" {
		g.root = "/" // refused: whoever gives the flag means something by it
	}
	if !g.rootSet {
		if g.root, err = defaultRoot(); err != nil {
			return err
		}
	}
	g.root, err = filepath.Abs(g.root)
	return err
}

// versionText has runc's form, which engines take apart: the version is numbers, the commit comes second.
func versionText(name string) string {
	text := fmt.Sprintf("%s version %s\n", name, strings.TrimPrefix(version, "v"))
	if revision := buildCommit(); revision != "" {
		text += fmt.Sprintf("commit: %s\n", revision)
	}
	return text + fmt.Sprintf("spec: %s\ngo: %s\nlibseccomp: %s\n", specs.Version, goruntime.Version(), runtime.LibseccompVersion())
}

// buildCommit is what the linker was told, else what the go command has written down about the checkout.
func buildCommit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return ""
}

// commands lists every verb, each in the file of its name.
func commands(g *globals) []*cobra.Command {
	return []*cobra.Command{
		newAttachCommand(g),
		newCheckCommand(g),
		newCheckpointCommand(g),
		newCreateCommand(g),
		newDeleteCommand(g),
		newEventsCommand(g),
		newExecCommand(g),
		newFeaturesCommand(g),
		newFeedCommand(g),
		newKeeperCommand(g),
		newKillCommand(g),
		newLazyPagesCommand(g),
		newListCommand(g),
		newMonitorCommand(g),
		newPauseCommand(g),
		newPKICommand(),
		newPsCommand(g),
		newPushCommand(g),
		newReceiveCommand(g),
		newResolveCommand(g),
		newRestoreCommand(g),
		newRestoreMonitorCommand(g),
		newResumeCommand(g),
		newRunCommand(g),
		newServeCommand(g),
		newSpecCommand(g),
		newStartCommand(g),
		newStateCommand(g),
		newUpdateCommand(g),
	}
}
