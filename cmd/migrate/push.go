package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate"
	"github.com/livemigrate/migrate/transport"
)

func newPushCommand(g *globals) *cobra.Command {
	var (
		many      migrate.DrainOptions
		mode      string
		bandwidth string
		asJSON    bool
		story     string
	)
	opts := &many.Push
	cmd := &cobra.Command{
		Use:   "push ID... PEER",
		Short: "Move running containers to a peer",
		Long: `Move a running container, or several, to a peer: ssh://[user@]host[:port], tls://host:port or unix:///path.

Its processes, memory, files and TCP connections go on there. Until the last moment any failure leaves the container
running here. Exit codes: 0 moved; 1 failed, still running here; 2 usage; 3 outcome unknown, frozen here until
"migrate resolve ID"; 4 refused, nothing was touched.

Several move in the order given, --all in that of their memory, the largest first; --at-once of them at a time, their stops
one after the other. Before the first, both hosts are asked about each, and with an obstacle none moves, but for
--skip-refused. A table at the end tells how each ended. Exit codes: 0 all moved; 3 the outcome of one or more is unknown;
else 1 when one failed or was not begun after Ctrl-C; 4 when all that failed were refused. Ctrl-C: no more are begun, and
those before their last moment stay here. --bandwidth-limit is that of all together, divided by --at-once, or by their number if they are fewer.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, peer := args[:len(args)-1], args[len(args)-1]
			err := checkDrain(args, &many)
			if err == nil {
				err = checkPush(peer, mode, story, opts)
			}
			if err == nil {
				opts.BandwidthLimit, err = parseRate(bandwidth)
			}
			if err != nil {
				return usageError(err)
			}
			opts.Host = g.host()
			opts.Abandon = secondInterrupt()
			if many.All || len(ids) > 1 {
				return drain(cmd, ids, peer, story, asJSON, &many)
			}
			show := newProgress(os.Stderr, isTerminal(os.Stderr))
			opts.Event = show.Event
			if asJSON {
				lines := json.NewEncoder(cmd.OutOrStdout())
				opts.Event = func(e migrate.Event) { _ = lines.Encode(e) } // a reader that went away must not end the move
			}
			result, err := migrate.Push(cmd.Context(), ids[0], peer, opts)
			if err != nil {
				return err
			}
			if story != "" {
				if err := writeStory(story, result); err != nil { // the move has ended as it has
					fmt.Fprintln(os.Stderr, "warning:", err)
				}
			}
			return pushed(result, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&mode, "mode", "auto", "how its memory moves: auto (while it runs, until the stop is short), pre-copy (the same, as short as can be), stop-copy, post-copy (it runs at the peer at once, and its memory follows) or hybrid (pre-copy, and the rest follows)")
	flags.DurationVar(&opts.MaxDowntime, "max-downtime", 300*time.Millisecond, "auto: how long it may be away")
	flags.BoolVar(&opts.AutoConverge, "auto-converge", false, "auto: slow the container down, by its cpu quota, where it would be away for longer; it gets all back")
	feedFlag(flags, &opts.Feed)
	flags.IntVar(&opts.MaxRounds, "max-rounds", 30, "passes over its memory while it runs, at most")
	flags.IntVar(&opts.Lanes, "lanes", 2, "parallel data connections")
	flags.StringVar(&opts.Compress, "compress", "auto", "its memory on the way: auto (where that is faster than the link), none or zstd (always)")
	flags.StringVar(&bandwidth, "bandwidth-limit", "", "at most this much per second, such as 100MB/s")
	flags.BoolVar(&opts.Keep, "keep", false, "leave the stopped container here")
	flags.DurationVar(&opts.Retry, "retry", 30*time.Second, "how long to try again after a lost connection, 0 for not at all")
	flags.StringVar(&opts.Volumes, "volumes", "copy", "bind-mounted directories: copy, shared or refuse")
	tcpFlags(cmd, &opts.TCP)
	flags.BoolVar(&asJSON, "json", false, "print one JSON object per event")
	flags.StringVar(&story, "report", "", "write the story of the move to this file (.json)")
	drainFlags(cmd, &many)
	networkHookFlag(flags, &g.networkHook)
	tlsFlags(flags, &opts.Certificates)
	return cmd
}

// tcpFlags say what becomes of TCP connections, against what the container's network suggests.
func tcpFlags(cmd *cobra.Command, tcp *string) {
	flags := cmd.Flags()
	for name, usage := range map[string]string{
		"established": "its TCP connections go on (default where its address moves along)",
		"close":       "its TCP connections end (default where its address stays: with its host's network)",
	} {
		flags.BoolFunc("tcp-"+name, usage, func(value string) error {
			if on, err := strconv.ParseBool(value); !on {
				return err
			}
			*tcp = name
			return nil
		})
	}
	cmd.MarkFlagsMutuallyExclusive("tcp-established", "tcp-close")
}

// checkPush finds what is wrong with the command line, before anything is started.
func checkPush(peer, mode, story string, o *migrate.PushOptions) error {
	if _, err := transport.ParseAddress(peer); err != nil {
		return err
	}
	var err error
	if o.Mode, err = migrate.ParseMode(mode); err != nil {
		return fmt.Errorf("--%w", err)
	}
	switch {
	case o.MaxDowntime <= 0:
		return fmt.Errorf("--max-downtime %v: want a time such as 300ms", o.MaxDowntime)
	case o.AutoConverge && o.Mode != migrate.Auto:
		return errors.New("--auto-converge goes with --mode auto: only that has a downtime to converge to")
	case o.MaxRounds < 1:
		return fmt.Errorf("--max-rounds %d: want at least 1, or --mode stop-copy", o.MaxRounds)
	case o.Lanes < 1 || o.Lanes >= transport.MaxLanes:
		return fmt.Errorf("--lanes %d: want 1 to %d", o.Lanes, transport.MaxLanes-1)
	case o.Compress != "auto" && o.Compress != "none" && o.Compress != "zstd":
		return fmt.Errorf("--compress %s: want auto, none or zstd", o.Compress)
	case o.Volumes != "copy" && o.Volumes != "shared" && o.Volumes != "refuse":
		return fmt.Errorf("--volumes %s: want copy, shared or refuse", o.Volumes)
	case o.Retry < 0:
		return fmt.Errorf("--retry %v: want a time such as 30s, or 0 for none", o.Retry)
	case o.Retry == 0:
		o.Retry = migrate.NoRetry
	}
	if story != "" && !strings.HasSuffix(story, ".json") {
		return fmt.Errorf("--report %s: only .json is there yet", story)
	}
	return nil
}

// pushed is the end of the command after a move that ended.
func pushed(result *migrate.Result, asJSON bool) error {
	if result.Outcome == migrate.Moved {
		return nil
	}
	exit := &exitError{code: result.Outcome.ExitCode()}
	if result.Error != "" && !asJSON {
		exit.err = errors.New(result.Error)
	}
	return exit
}

// secondInterrupt is closed when the user insists. The first Ctrl-C ends the command's context.
func secondInterrupt() <-chan struct{} {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT)
	twice := make(chan struct{})
	go func() {
		<-signals
		fmt.Fprintln(os.Stderr, "calling it off, where it is not too late; interrupt again to leave that alone")
		<-signals
		close(twice)
	}()
	return twice
}

// parseRate reads a number of bytes per second: 100MB/s, 1.5G, 64KiB/s.
func parseRate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number := strings.TrimSuffix(strings.TrimSuffix(s, "/s"), "B")
	unit := int64(1)
	for _, u := range []struct {
		suffix string
		bytes  int64
	}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"K", 1e3}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}} {
		if strings.HasSuffix(number, u.suffix) {
			number, unit = strings.TrimSuffix(number, u.suffix), u.bytes
			break
		}
	}
	var value float64
	var rest string
	if n, _ := fmt.Sscanf(number, "%g%s", &value, &rest); n != 1 || value*float64(unit) < 1 || value*float64(unit) > 1<<50 {
		return 0, fmt.Errorf("bandwidth limit %q: want a rate such as 100MB/s", s)
	}
	return int64(value * float64(unit)), nil
}

func writeStory(path string, result any) error {
	content, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
