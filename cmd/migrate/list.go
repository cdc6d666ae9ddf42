package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func newListCommand(g *globals) *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:         "list [flags]",
		Short:       "List the containers of this root",
		Annotations: map[string]string{readsOnly: ""},
		Args:        exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := listContainers(g)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case quiet:
				for i := range list {
					fmt.Fprintln(out, list[i].ID)
				}
				return nil
			case format == "table":
				return printTable(out, list)
			case format == "json":
				return json.NewEncoder(out).Encode(list)
			}
			return errors.New("invalid format option")
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "table", "select one of: table or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "display only container IDs")
	return cmd
}

func listContainers(g *globals) ([]containerState, error) {
	rt, err := g.runtime()
	if err != nil {
		return nil, err
	}
	containers, err := rt.List()
	if errors.Is(err, fs.ErrNotExist) && !g.rootSet {
		return nil, nil // nothing was ever created
	}
	if err != nil {
		return nil, err
	}
	var list []containerState
	for _, c := range containers {
		state, err := describe(c)
		if err != nil {
			g.log.Warn(fmt.Sprintf("status for %s: %v", c.ID(), err))
			continue
		}
		warnOfMemory(g, c)
		if state.Owner, err = owner(c.StateDir()); err != nil {
			continue // deleted meanwhile
		}
		list = append(list, *state)
	}
	return list, nil
}

// owner is the user whose container it is.
func owner(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	uid := strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username, nil
	}
	return "#" + uid, nil
}

func printTable(out io.Writer, list []containerState) error {
	w := tabwriter.NewWriter(out, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for i := range list {
		s := &list[i]
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}
