package netspace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
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
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second // a child of its own may hold its standard error
	err = cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	text := said.Bytes()
	if len(text) > saidMost {
		text = text[len(text)-saidMost:]
	}
	if words := strings.Join(strings.Fields(string(text)), " "); words != "" {
		return fmt.Errorf("network hook %s %s: %w: %s", h.Program, verb, err, words)
	}
	return fmt.Errorf("network hook %s %s: %w", h.Program, verb, err)
}
