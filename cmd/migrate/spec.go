package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/runtime"
	"github.com/spf13/cobra"
)

func newSpecCommand(_ *globals) *cobra.Command {
	var bundle string
	var rootless bool
	cmd := &cobra.Command{
		Use:   "spec [flags]",
		Short: "Create a new specification file to start from",
		Long:  "Create a config.json in the bundle that runs sh in the root filesystem rootfs. It is a start: edit it.",
		Args:  exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			spec := runtime.ExampleSpec()
			if rootless {
				runtime.MakeRootless(spec)
			}
			data, err := json.MarshalIndent(spec, "", "\t")
			if err != nil {
				return err
			}
			path := filepath.Join(bundle, runtime.ConfigFile)
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("File %s exists. Remove it first", runtime.ConfigFile) //nolint:staticcheck // ST1005: runc's text
			}
			if err != nil {
				return err
			}
			_, err = f.Write(data)
			return errors.Join(err, f.Close())
		},
	}
	cmd.Flags().StringVarP(&bundle, "bundle", "b", "", "path to the root of the bundle directory")
	cmd.Flags().BoolVar(&rootless, "rootless", false, "generate a configuration for a rootless container")
	return cmd
}
