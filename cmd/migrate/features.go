package main

import (
	"encoding/json"
	"strings"

	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
)

func newFeaturesCommand(_ *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "features",
		Short: "Show the enabled features as JSON",
		Long:  "Show the enabled features as JSON, in the form of the OCI runtime specification (features.md).",
		Args:  exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "    ")
			return enc.Encode(runtime.Features(strings.TrimPrefix(version, "v"), buildCommit()))
		},
	}
}
