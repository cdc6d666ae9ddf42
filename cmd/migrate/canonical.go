package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// canonical rewrites a command line of runc's, whose long flags may have a single dash (-root DIR, -detach), to one that
// pflag reads the same way: there a single dash begins short flags. A verb that does not exist is its error.
func canonical(root *cobra.Command, args []string) ([]string, error) {
	out := make([]string, 0, len(args))
	cmd := root
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return append(out, args[i:]...), nil
		case len(arg) < 2 || arg[0] != '-':
			out = append(out, arg)
			if cmd == root && (arg == cobra.ShellCompRequestCmd || arg == cobra.ShellCompNoDescRequestCmd) {
				return append(out, args[i+1:]...), nil // the rest is what a shell wants completed
			}
			if next := verb(cmd, arg); next != nil {
				cmd = next
			} else if cmd == root {
				return nil, noTopic(arg)
			} else if _, ends := cmd.Annotations[flagsEnd]; ends {
				return append(out, args[i+1:]...), nil
			}
			continue
		case arg[1] != '-' && lookup(cmd, longName(arg)) != nil:
			arg = "-" + arg
		}
		out = append(out, arg)
		if needsValue(cmd, arg) && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out, nil
}

// verb is the command of a name below cmd, nil for none.
func verb(cmd *cobra.Command, name string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == name || c.HasAlias(name) {
			return c
		}
	}
	return nil
}

// argumentsFirst ends the flags of a verb at its first argument: the rest is another program's (exec, ps), or may look
// like a flag (kill ID -9). canonical keeps to it by the annotation, which pflag's own setting cannot be read back for.
func argumentsFirst(cmd *cobra.Command) {
	cmd.Flags().SetInterspersed(false)
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[flagsEnd] = ""
}

const flagsEnd = "flags end at the first argument"

func longName(arg string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	if len(name) < 2 {
		return ""
	}
	return name
}

func lookup(cmd *cobra.Command, name string) *pflag.Flag {
	if f := cmd.Flags().Lookup(name); f != nil {
		return f
	}
	return cmd.Root().PersistentFlags().Lookup(name)
}

// needsValue: the next argument is the value of this one.
func needsValue(cmd *cobra.Command, arg string) bool {
	if strings.HasPrefix(arg, "--") {
		f := lookup(cmd, longName(arg))
		return f != nil && f.NoOptDefVal == "" && !strings.Contains(arg, "=")
	}
	for i, letter := range arg[1:] {
		f := cmd.Flags().ShorthandLookup(string(letter))
		if f == nil {
			return false
		}
		if f.NoOptDefVal == "" { // what follows the letter, if anything, is its value
			return i == len(arg)-2
		}
	}
	return false
}
