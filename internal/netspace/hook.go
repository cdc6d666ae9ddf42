package netspace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Hook is a program of the operator's that connects network namespaces.
type Hook struct {
	Program string // by its absolute path
}

// Verb is what a hook is called for: its first argument.
type Verb string

// The verbs, in the order of a move. Each may come again, after a crash: a hook does what is not done yet.
const (
	Add      Verb = "add"  // the namespace exists, cut off: make the interfaces that no bridge connects
	Plug     Verb = "open" // the container runs here: connect them, announce them
	TakeAway Verb = "del"  // the move has failed, or the container has left: undo what add and open did outside of the namespace
)

// hookLimit is how long a call may take. The service waits for "open".
const hookLimit = 10 * time.Second

// Call is what a hook finds on its standard input, as JSON: the OCI's state of the container, and the network.
type Call struct {
	specs.State

	Network *Record `json:"network"`
}

// saidMost is how much of what a hook says goes into an error.
const saidMost = 1 << 10

// tail keeps the end of what is written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	all := append(*t, p...)
	*t = append((*t)[:0], all[max(0, len(all)-saidMost):]...)
	return len(p), nil
}

// Run calls the hook and waits for its end, ten seconds at most. MIGRATE_NETNS is the namespace's path. The error has the end of
// what it said on standard error.
func (h *Hook) Run(ctx context.Context, verb Verb, call *Call) error {
	ctx, cancel := context.WithTimeoutCause(ctx, hookLimit, fmt.Errorf("it took more than %v", hookLimit))
	defer cancel()
	input, err := json.Marshal(call)
	if err != nil {
		return fmt.Errorf("network hook: %w", err)
	}
	cmd := exec.CommandContext(ctx, h.Program, string(verb))
	cmd.Env = append(os.Environ(), "MIGRATE_NETNS="+call.Network.Path)
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(input)
	var said tail
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second // a child of its own may hold its standard error
	// It and its children end at the limit, and it ends with this process: whoever ends the move of a keeper that is gone calls it
	// with another verb, which two at a time are not made for.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	runtime.LockOSThread() // the kernel takes the end of this thread for the process's
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if words := strings.Join(strings.Fields(string(said)), " "); words != "" {
		return fmt.Errorf("network hook %s %s: %w: %s", h.Program, verb, err, words)
	}
	return fmt.Errorf("network hook %s %s: %w", h.Program, verb, err)
}
