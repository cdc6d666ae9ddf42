package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
)

func newKillCommand(g *globals) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "kill [flags] CONTAINER [SIGNAL]",
		Short: "Send a signal (default: SIGTERM) to the container's init process",
		Args:  cobra.MatchAll(minArgs(1), maxArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.container(args[0])
			if err != nil {
				return err
			}
			name := "SIGTERM"
			if len(args) > 1 && args[1] != "" {
				name = args[1]
			}
			sig, err := parseSignal(name)
			if err != nil {
				return err
			}
			err = c.Signal(cmd.Context(), sig, all)
			if all && errors.Is(err, runtime.ErrNotRunning) {
				return nil
			}
			return err
		},
	}
	argumentsFirst(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "send the signal to all processes of the container; none is no error")
	return cmd
}

// parseSignal takes a number, or a name with or without SIG, in any case.
func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := process.SignalByName(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown signal %q", text)
}
