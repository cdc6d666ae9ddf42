package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/livemigrate/migrate/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// failedExec is the exit code of an exec that did not run its program: a program's own codes end at 254 for most.
const failedExec = 255

type execFlags struct {
	process       processFlags
	processFile   string
	cwd           string
	env           []string
	tty           bool
	user          string
	gids          []int64
	label         string
	apparmor      string
	noNewPrivs    bool
	noNewPrivsSet bool
	caps          []string
	cgroup        []string
	ignorePaused  bool
}

func newExecCommand(g *globals) *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] CONTAINER COMMAND [ARGS] | exec -p process.json CONTAINER",
		Short: "Execute a new process inside a container",
		Long:  "Execute a new process inside a running container. In the foreground the exit status is the process's, 255 when it could not be started.",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.noNewPrivsSet = cmd.Flags().Changed("no-new-privs")
			status, err := execute(cmd.Context(), g, args, &f)
			if err != nil {
				return &exitError{code: failedExec, err: fmt.Errorf("exec failed: %w", err)}
			}
			return exit(status)
		},
	}
	argumentsFirst(cmd)
	f.add(cmd.Flags())
	return cmd
}

func (f *execFlags) add(flags *pflag.FlagSet) {
	f.process.add(flags)
	f.process.addDetach(flags)
	flags.StringVarP(&f.processFile, "process", "p", "", "path to the process.json")
	flags.StringVar(&f.cwd, "cwd", "", "current working directory in the container")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "set environment variables")
	flags.BoolVarP(&f.tty, "tty", "t", false, "allocate a pseudo-TTY")
	flags.StringVarP(&f.user, "user", "u", "", "UID (format: <uid>[:<gid>])")
	flags.Int64SliceVarP(&f.gids, "additional-gids", "g", nil, "additional gids")
	flags.StringVar(&f.label, "process-label", "", "set the asm process label for the process commonly used with selinux")
	flags.StringVar(&f.apparmor, "apparmor", "", "set the apparmor profile for the process")
	flags.BoolVar(&f.noNewPrivs, "no-new-privs", false, "set the no new privileges value for the process")
	flags.StringArrayVarP(&f.caps, "cap", "c", nil, "add a capability to the bounding set for the process")
	flags.StringArrayVar(&f.cgroup, "cgroup", nil, "run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>")
	flags.BoolVar(&f.ignorePaused, "ignore-paused", false, "allow exec in a paused container")
}

func execute(ctx context.Context, g *globals, args []string, f *execFlags) (status int, err error) {
	c, err := g.container(args[0])
	if err != nil {
		return 0, err
	}
	o := &runtime.ExecOptions{IgnorePaused: f.ignorePaused}
	// Before anything else: "not running" is what callers wait for, whatever else is wrong.
	if err := c.CanExec(f.ignorePaused); err != nil {
		return 0, err
	}
	if o.Process, err = f.spec(c, args[1:]); err != nil {
		return 0, err
	}
	if err := f.process.check(o.Process.Terminal); err != nil {
		return 0, err
	}
	if o.Cgroup, err = subCgroups(f.cgroup); err != nil {
		return 0, err
	}
	if o.ExtraFiles, _, err = extraFiles(f.process.preserveFDs); err != nil {
		return 0, err
	}
	if o.PidFile, err = f.process.absolutePidFile(); err != nil {
		return 0, err
	}
	if o.PidfdSocket, err = dial(f.process.pidfdSocket); err != nil {
		return 0, err
	}
	if f.process.detach {
		if o.ConsoleSocket, err = dial(f.process.consoleSocket); err != nil {
			return 0, err
		}
		_, err = c.Exec(ctx, o)
		return 0, err
	}
	return execForeground(ctx, g, c, o)
}

func execForeground(ctx context.Context, g *globals, c *runtime.Container, o *runtime.ExecOptions) (int, error) {
	uid, gid, err := c.Plan().HostRoot()
	if err != nil {
		return 0, err
	}
	io, err := newStdio(o.Process.Terminal, uid, gid)
	if err != nil {
		return 0, err
	}
	defer io.Close()
	o.Stdin, o.Stdout, o.Stderr, o.ConsoleSocket = io.Stdin, io.Stdout, io.Stderr, io.Console
	signals := newForeground(g.log)
	process, err := c.Exec(ctx, o)
	if err != nil {
		return 0, err
	}
	if err := io.connect(); err != nil {
		return 0, errors.Join(err, process.Kill())
	}
	return signals.wait(process.Pid(), process.Signal, io.resize)
}

// spec is the process to run: a file's, or the container's own with what the flags change.
func (f *execFlags) spec(c *runtime.Container, args []string) (*specs.Process, error) {
	if f.processFile != "" {
		data, err := os.ReadFile(f.processFile)
		if err != nil {
			return nil, err
		}
		p := &specs.Process{}
		if err := json.Unmarshal(data, p); err != nil {
			return nil, fmt.Errorf("parse %s: %w", f.processFile, err)
		}
		return p, nil
	}
	if len(args) == 0 {
		return nil, errors.New("exec args cannot be empty")
	}
	p := c.Spec().Process
	p.Args = args
	p.Terminal = f.tty
	p.Env = append(p.Env, f.env...)
	if f.cwd != "" {
		p.Cwd = f.cwd
	}
	if f.apparmor != "" {
		p.ApparmorProfile = f.apparmor
	}
	if f.label != "" {
		p.SelinuxLabel = f.label
	}
	if f.noNewPrivsSet {
		p.NoNewPrivileges = f.noNewPrivs
	}
	f.addCapabilities(p)
	return p, f.setUser(&p.User)
}

func (f *execFlags) addCapabilities(p *specs.Process) {
	if len(f.caps) == 0 {
		return
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	caps := p.Capabilities
	caps.Bounding = append(caps.Bounding, f.caps...)
	caps.Effective = append(caps.Effective, f.caps...)
	caps.Permitted = append(caps.Permitted, f.caps...)
	// The kernel takes an ambient capability only when it is inheritable too, and those are not for us to add.
	if caps.Inheritable != nil {
		caps.Ambient = append(caps.Ambient, f.caps...)
	}
}

func (f *execFlags) setUser(user *specs.User) error {
	if f.user != "" {
		uidText, gidText, hasGID := strings.Cut(f.user, ":")
		uid, err := strconv.ParseUint(uidText, 10, 32)
		if err != nil {
			return fmt.Errorf("bad uid: %w", err)
		}
		user.UID = uint32(uid)
		if hasGID {
			gid, err := strconv.ParseUint(gidText, 10, 32)
			if err != nil {
				return fmt.Errorf("bad gid: %w", err)
			}
			user.GID = uint32(gid)
		}
	}
	for _, gid := range f.gids {
		if gid < 0 {
			return fmt.Errorf("additional-gids must be a positive number %d", gid)
		}
		user.AdditionalGids = append(user.AdditionalGids, uint32(gid))
	}
	return nil
}

// subCgroups understands --cgroup: one PATH for all controllers, or CONTROLLER[,CONTROLLER...]:PATH any number of times.
func subCgroups(args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	paths := map[string]string{}
	for _, arg := range args {
		controllers, path, ok := strings.Cut(arg, ":")
		if !ok {
			if len(args) != 1 {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (missing <controller>: prefix)", arg)
			}
			return map[string]string{"": arg}, nil
		}
		for controller := range strings.SplitSeq(controllers, ",") {
			if controller == "" {
				return nil, fmt.Errorf("invalid --cgroup argument: %s (empty <controller> prefix)", arg)
			}
			if _, ok := paths[controller]; ok {
				return nil, fmt.Errorf("invalid --cgroup argument(s): controller %s specified multiple times", controller)
			}
			paths[controller] = path
		}
	}
	return paths, nil
}
