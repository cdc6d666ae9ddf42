package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func newPsCommand(g *globals) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ps [flags] CONTAINER [PS OPTIONS]",
		Short: "Display the processes running inside a container",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.container(args[0])
			if err != nil {
				return err
			}
			pids, err := c.Processes()
			if err != nil {
				return err
			}
			switch format {
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(pids)
			case "table":
			default:
				return errors.New("invalid format option")
			}
			options := args[1:]
			if len(options) == 0 {
				options = []string{"-ef"}
			}
			table, err := exec.CommandContext(cmd.Context(), "ps", options...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, table)
			}
			return printProcesses(cmd.OutOrStdout(), string(table), pids)
		},
	}
	argumentsFirst(cmd)
	cmd.Flags().StringVarP(&format, "format", "f", "table", "select one of: table or json")
	return cmd
}

// printProcesses prints the head of a table of ps(1), and its lines about pids.
func printProcesses(out io.Writer, table string, pids []int) error {
	column := -1
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if column < 0 {
			if column = slices.Index(fields, "PID"); column < 0 {
				return errors.New("couldn't find PID field in ps output")
			}
			fmt.Fprint(out, line)
			continue
		}
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			fmt.Fprint(out, line)
		}
	}
	return nil
}
