package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/keeper"
	"github.com/livemigrate/migrate/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
)

// containerState is what state and list print; the keys and their order are runc's.
type containerState struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"` // 0 when stopped
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func describe(c *runtime.Container) (*containerState, error) {
	status, err := c.Status()
	if err != nil {
		return nil, err
	}
	state := c.State()
	out := &containerState{
		Version:     specs.Version,
		ID:          state.ID,
		Status:      status.String(),
		Bundle:      state.Plan.Bundle,
		Rootfs:      state.Plan.Rootfs,
		Created:     state.Created,
		Annotations: state.Plan.Spec.Annotations,
	}
	if status != runtime.Stopped {
		out.Pid = c.InitPid() // 0 when only others are left of a paused container: the number may be a stranger's
	}
	return out, nil
}

// warnOfMemory tells of a container that stands still, or will, for memory that nobody gives it.
func warnOfMemory(g *globals, c *runtime.Container) {
	if err := (keeper.Places{Root: g.root}).Fill().CheckMemory(c, g.log); err != nil {
		g.log.Warn(fmt.Sprintf("container %s: %v", c.ID(), err))
	}
}

func newStateCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:         "state CONTAINER",
		Short:       "Print the state of a container as JSON",
		Annotations: map[string]string{readsOnly: ""},
		Args:        exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.container(args[0])
			if err != nil {
				return err
			}
			warnOfMemory(g, c)
			state, err := describe(c)
			if err != nil {
				return err
			}
			data, err := json.MarshalIndent(state, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), string(data))
			return err
		},
	}
}
