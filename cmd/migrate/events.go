package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
)

// event is one line of events' output.
type event struct {
	Type string         `json:"type"`
	ID   string         `json:"id"`
	Data *runtime.Stats `json:"data,omitempty"`
}

func newEventsCommand(g *globals) *cobra.Command {
	var interval time.Duration
	var once bool
	cmd := &cobra.Command{
		Use:   "events [flags] CONTAINER",
		Short: "Display container events such as OOM notifications, cpu, memory, and IO usage statistics",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval <= 0 {
				return errors.New("duration interval must be greater than 0")
			}
			c, err := g.container(args[0])
			if err != nil {
				return err
			}
			status, err := c.Status()
			if err != nil {
				return err
			}
			if status == runtime.Stopped {
				return fmt.Errorf("container with id %s is not running", c.ID())
			}
			out := json.NewEncoder(cmd.OutOrStdout())
			if once {
				return printStats(out, c)
			}
			return watch(cmd.Context(), g, out, c, interval)
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", 5*time.Second, "set the stats collection interval")
	cmd.Flags().BoolVar(&once, "stats", false, "display the container's stats then exit")
	return cmd
}

func printStats(out *json.Encoder, c *runtime.Container) error {
	stats, err := c.Stats()
	if err != nil {
		return err
	}
	return out.Encode(event{Type: "stats", ID: c.ID(), Data: stats})
}

// watch prints until the container is gone.
func watch(ctx context.Context, g *globals, out *json.Encoder, c *runtime.Container, interval time.Duration) error {
	ooms, err := c.NotifyOOM(ctx)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case _, ok := <-ooms:
			if !ok {
				return nil
			}
			if err := out.Encode(event{Type: "oom", ID: c.ID()}); err != nil {
				return err
			}
		case <-ticker.C:
			if err := printStats(out, c); err != nil {
				g.log.Error(err.Error())
			}
		}
	}
}
