package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// exitNoTopic is the exit code of runc for a verb that it does not have.
const exitNoTopic = 3

// noTopic is the error of a verb that does not exist, asked for by itself, with -h, or by help.
func noTopic(verb string) error {
	return &exitError{code: exitNoTopic, err: fmt.Errorf("No help topic for '%s'", verb)} //nolint:staticcheck // ST1005: runc's text
}

// newHelpCommand is `help [COMMAND]`, which cobra's own would answer with success whatever is asked for.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Aliases: []string{"h"},
		Short:   "Show the commands, or the help of one",
		Args:    maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return noTopic(args[0])
			}
			return topic.Help()
		},
	}
}

// addHelpFlags adds --help everywhere. cobra would do it only when it runs a command, too late for canonical to know -help.
func addHelpFlags(cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	for _, below := range cmd.Commands() {
		addHelpFlags(below)
	}
}

// printHelp lays help out as runc does: a drop-in is also read by people who know runc, and by scripts.
func printHelp(cmd *cobra.Command, _ []string) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "NAME:\n   %s - %s\n", cmd.CommandPath(), cmd.Short)
	if !cmd.HasParent() {
		printRootHelp(out, cmd)
		return
	}
	_, arguments, _ := strings.Cut(cmd.Use, " ")
	arguments = strings.TrimSpace(strings.TrimPrefix(arguments, "[flags]"))
	options, flags := "", pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" && !f.Hidden {
			flags.AddFlag(f)
			options = " [command options]"
		}
	})
	fmt.Fprintf(out, "\nUSAGE:\n   %s\n", strings.TrimSpace(cmd.CommandPath()+options+" "+arguments))
	if cmd.Long != "" {
		fmt.Fprintf(out, "\nDESCRIPTION:\n   %s\n", strings.ReplaceAll(cmd.Long, "\n", "\n   "))
	}
	if cmd.HasAvailableSubCommands() {
		printCommands(out, cmd)
	}
	if options != "" {
		printFlags(out, "OPTIONS", flags)
	}
}

func printRootHelp(out io.Writer, root *cobra.Command) {
	fmt.Fprintf(out, "\nUSAGE:\n   %s [global options] command [command options] [arguments...]\n", root.Name())
	fmt.Fprintf(out, "\nVERSION:\n   %s\n", root.Version)
	printCommands(out, root)
	printFlags(out, "GLOBAL OPTIONS", root.Flags())
}

func printCommands(out io.Writer, cmd *cobra.Command) {
	fmt.Fprint(out, "\nCOMMANDS:\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			fmt.Fprintf(w, "   %s\t%s\n", strings.Join(append([]string{c.Name()}, c.Aliases...), ", "), c.Short)
		}
	}
	_ = w.Flush()
}

func printFlags(out io.Writer, title string, flags *pflag.FlagSet) {
	fmt.Fprintf(out, "\n%s:\n", title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	flags.VisitAll(func(f *pflag.Flag) {
		fmt.Fprintf(w, "   %s\t%s\n", flagNames(f), flagUsage(f))
	})
	_ = w.Flush()
}

// flagNames is "--bundle value, -b value", or "--detach, -d" of a switch.
func flagNames(f *pflag.Flag) string {
	value := ""
	if f.NoOptDefVal == "" {
		value = " value"
	}
	names := "--" + f.Name + value
	if f.Shorthand != "" {
		names += ", -" + f.Shorthand + value
	}
	return names
}

func flagUsage(f *pflag.Flag) string {
	switch f.DefValue {
	case "", "false", "[]":
		return f.Usage
	}
	if f.Value.Type() == "string" {
		return fmt.Sprintf("%s (default: %q)", f.Usage, f.DefValue)
	}
	return fmt.Sprintf("%s (default: %s)", f.Usage, f.DefValue)
}
