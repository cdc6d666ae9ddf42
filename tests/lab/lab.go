// Package lab drives scripts/lab: two hosts and a client, made of namespaces on one network.
//
// A host is a place to run commands in. They are processes of this machine, so a test can signal them, and what they
// write in the host's private directories can be read from outside (Host.Path).
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Lab is two hosts, A and B, and a client, C, on one bridge.
type Lab struct {
	Name    string
	A, B, C *Host
	Lan     *Host // the switch between them: its bridge's ports are a, b and c
}

// Host is one of them. Containers attach to its bridge br0, which is the whole network 10.77.0.0/24.
type Host struct {
	Name string // as scripts/lab knows it: LAB-a
	IP   string
	dir  string
}

// Options may be nil.
type Options struct {
	Rate string // limits each host's link, in tc's words: "1gbit"
}

// Repo is the root of the source tree, where scripts and bin are.
func Repo() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// CRIU is the program that works on this machine: the environment's, or the one that scripts/setup settled on.
func CRIU() string {
	if path := os.Getenv("MIGRATE_CRIU"); path != "" {
		return path
	}
	text, _ := os.ReadFile("/var/cache/migrate/criu-probe")
	path, _, _ := strings.Cut(string(text), "\n")
	return path
}

// Up makes the lab anew, whatever was left of one with this name. It needs root, and bin/migrate for the certificates.
func Up(ctx context.Context, name string, o *Options) (*Lab, error) {
	if err := Down(ctx, name); err != nil {
		return nil, err
	}
	args := []string{"up", name}
	if o != nil && o.Rate != "" {
		args = append(args, "--rate", o.Rate)
	}
	if _, err := output(script(ctx, args...)); err != nil {
		return nil, fmt.Errorf("make lab %s: %w", name, err)
	}
	l := &Lab{Name: name}
	for i, host := range []**Host{&l.A, &l.B, &l.C} {
		letter := string(rune('a' + i))
		*host = &Host{
			Name: name + "-" + letter,
			IP:   fmt.Sprintf("10.77.0.%d", i+1),
			dir:  filepath.Join("/var/lib/migrate-lab", name, letter),
		}
	}
	l.Lan = &Host{Name: name + "-lan", dir: filepath.Join("/var/lib/migrate-lab", name, "lan")}
	return l, nil
}

// Down ends everything in the lab of this name, and removes it. A lab that is not there is no error.
func Down(ctx context.Context, name string) error {
	if _, err := output(script(ctx, "down", name)); err != nil {
		return fmt.Errorf("remove lab %s: %w", name, err)
	}
	return nil
}

// Command is a command on the host, not yet started. A signal to its process reaches the command itself.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	return script(ctx, append([]string{"exec", h.Name, "--"}, args...)...)
}

// Run runs a command on the host to its end and returns what it printed. The error carries its last words.
func (h *Host) Run(ctx context.Context, args ...string) (string, error) {
	return output(h.Command(ctx, args...))
}

// Start runs a command whose children may outlive it, a detached container's for one: its output goes to no pipe, which
// such a child would keep open.
func (h *Host) Start(ctx context.Context, args ...string) error {
	log := h.Path("/srv/" + filepath.Base(args[0]) + ".log")
	cmd := h.Command(ctx, append([]string{"sh", "-c", `log=$1; shift; exec "$@" >"$log" 2>&1`, "-", "/srv/" + filepath.Base(log)}, args...)...)
	var stderr bytes.Buffer // of the way to the command: its own is the log
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		said, _ := exec.CommandContext(ctx, "tail", "-n", "5", log).Output()
		return &CommandError{Args: args, Said: strings.TrimSpace(stderr.String() + string(said)), Err: err}
	}
	return nil
}

// Bundle lays a bundle into the host, with the words of scripts/bundle.
func (h *Host) Bundle(ctx context.Context, kind, dir string, args ...string) error {
	_, err := h.Run(ctx, append([]string{filepath.Join(Repo(), "scripts", "bundle"), kind, dir}, args...)...)
	return err
}

// Path is where a file of the host's /srv or /var/lib/migrate lies for whoever is outside.
func (h *Host) Path(path string) string {
	switch {
	case strings.HasPrefix(path, "/srv/"):
		return filepath.Join(h.dir, path)
	case strings.HasPrefix(path, "/var/lib/migrate/"):
		return filepath.Join(h.dir, "var", strings.TrimPrefix(path, "/var/lib/migrate/"))
	}
	panic("lab: not a private directory that shows from outside: " + path)
}

// Pids are the processes on the host, containers' included.
func (h *Host) Pids() []string {
	top, _, _ := strings.Cut(h.cgroups(), "\n")
	var pids []string
	_ = filepath.WalkDir(filepath.Join(top, h.Name[len(h.Name)-1:]), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "cgroup.procs" {
			text, _ := os.ReadFile(path) // a cgroup may go while we look
			pids = append(pids, strings.Fields(string(text))...)
		}
		return nil
	})
	return pids
}

// MemoryBytes is what the host's cgroup is charged with: its processes, containers included, and files in memory. 0 where no
// hierarchy counts memory.
func (h *Host) MemoryBytes() int64 {
	for top := range strings.Lines(h.cgroups()) {
		for _, name := range []string{"memory.usage_in_bytes", "memory.current"} {
			text, err := os.ReadFile(filepath.Join(strings.TrimSpace(top), h.Name[len(h.Name)-1:], name))
			if n, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && parseErr == nil {
				return n
			}
		}
	}
	return 0
}

// MemoryLimitFile is where the limit of what the host's cgroup may be charged with is set. Empty where no hierarchy counts memory.
func (h *Host) MemoryLimitFile() string {
	for top := range strings.Lines(h.cgroups()) {
		for _, name := range []string{"memory.limit_in_bytes", "memory.max"} {
			file := filepath.Join(strings.TrimSpace(top), h.Name[len(h.Name)-1:], name)
			if _, err := os.Stat(file); err == nil {
				return file
			}
		}
	}
	return ""
}

// cgroups are the lab's directories, one for each hierarchy.
func (h *Host) cgroups() string {
	text, _ := os.ReadFile(filepath.Join(h.dir, "..", "cgroups"))
	return string(text)
}

// CommandError is a command that failed: what it was, and the last it said on standard error.
type CommandError struct {
	Args []string
	Said string
	Err  error
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s: %v: %s", strings.Join(e.Args, " "), e.Err, e.Said)
}

func (e *CommandError) Unwrap() error { return e.Err }

// ExitCode of the command in err; -1 if it was no command that ended by itself.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// Said is what the command in err printed on standard error.
func Said(err error) (string, bool) {
	if command, ok := errors.AsType[*CommandError](err); ok {
		return command.Said, true
	}
	return "", false
}

func script(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(Repo(), "scripts", "lab"), args...)
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), &CommandError{Args: cmd.Args[1:], Said: strings.TrimSpace(stderr.String()), Err: err}
	}
	return stdout.String(), nil
}
