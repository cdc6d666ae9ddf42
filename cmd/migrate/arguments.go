package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// The texts of wrong numbers of arguments are runc's.

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s: %q requires exactly %d argument(s)", os.Args[0], cmd.Name(), n)
		}
		return nil
	}
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return fmt.Errorf("%s: %q requires a minimum of %d argument(s)", os.Args[0], cmd.Name(), n)
		}
		return nil
	}
}

func maxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("%s: %q requires a maximum of %d argument(s)", os.Args[0], cmd.Name(), n)
		}
		return nil
	}
}
