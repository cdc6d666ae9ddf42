// Package hooks runs the programs that a container's config names for the moments of its life, in the runtime's
// namespaces. Those that run inside the container (createContainer, startContainer) are run by its init.
package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The moments, spelled as in config.json.
const (
	Prestart        = "prestart"
	CreateRuntime   = "createRuntime"
	CreateContainer = "createContainer"
	StartContainer  = "startContainer"
	Poststart       = "poststart"
	Poststop        = "poststop"
)

// Names lists every moment in the order in which a container meets them.
func Names() []string {
	return []string{Prestart, CreateRuntime, CreateContainer, StartContainer, Poststart, Poststop}
}

// Of returns the hooks of one moment; all may be nil.
func Of(all *specs.Hooks, name string) []specs.Hook {
	if all == nil {
		return nil
	}
	switch name {
	case Prestart:
		return all.Prestart //nolint:staticcheck // SA1019: deprecated in the specification, still used by engines.
	case CreateRuntime:
		return all.CreateRuntime
	case CreateContainer:
		return all.CreateContainer
	case StartContainer:
		return all.StartContainer
	case Poststart:
		return all.Poststart
	case Poststop:
		return all.Poststop
	}
	return nil
}

// Run runs the hooks of one moment one after the other, each with the state on its standard input, and stops at the
// first that fails. Its output is in the error: a hook has nowhere else to complain.
func Run(ctx context.Context, all *specs.Hooks, name string, state *specs.State) error {
	list := Of(all, name)
	if len(list) == 0 {
		return nil
	}
	input, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode state for %s hooks: %w", name, err)
	}
	for i := range list {
		if err := run(ctx, &list[i], input); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", name, i, err)
		}
	}
	return nil
}

func run(ctx context.Context, hook *specs.Hook, input []byte) error {
	if hook.Timeout != nil {
		limit := time.Duration(*hook.Timeout) * time.Second
		timed, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("hook ran past specified timeout of %.1fs", limit.Seconds()))
		defer cancel()
		ctx = timed
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, hook.Path)
	if len(hook.Args) > 0 {
		cmd.Args = hook.Args
	}
	// A hook gets the environment of its config and nothing of ours. nil would mean ours.
	cmd.Env = append([]string{}, hook.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &output, &output
	// A hook may leave a daemon behind that keeps its output open; it must not keep us.
	cmd.WaitDelay = 100 * time.Millisecond
	err := cmd.Run()
	switch {
	case err == nil || cmd.ProcessState != nil && cmd.ProcessState.Success():
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case output.Len() > 0:
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(output.String()))
	}
	return err
}
