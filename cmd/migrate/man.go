//go:build man

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// With the tag man this program is another one: it writes the man pages and the shells' completions of migrate into
// DIR/man and DIR/completion. So they come from the commands themselves, and what makes them is not part of migrate.
func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run -tags man ./cmd/migrate DIR")
		os.Exit(2)
	}
	root := newRootCommand(&globals{}, "migrate")
	root.DisableAutoGenTag = true // its date would be today's
	for _, write := range []func(*cobra.Command, string) error{writeMan, writeCompletions} {
		if err := write(root, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "write documentation:", err)
			os.Exit(1)
		}
	}
}

// writeMan dates the pages by SOURCE_DATE_EPOCH, which the Makefile sets: the same commit has the same pages.
func writeMan(root *cobra.Command, dir string) error {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("read SOURCE_DATE_EPOCH: %w", err)
	}
	date := time.Unix(seconds, 0).UTC()
	dir = filepath.Join(dir, "man")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return doc.GenManTree(root, &doc.GenManHeader{
		Section: "1", Date: &date, Source: "migrate " + root.Version, Manual: "migrate",
	}, dir)
}

// writeCompletions names the files as the shells look for them.
func writeCompletions(root *cobra.Command, dir string) error {
	dir = filepath.Join(dir, "completion")
	for path, write := range map[string]func(string) error{
		"bash/migrate":      func(path string) error { return root.GenBashCompletionFileV2(path, true) },
		"zsh/_migrate":      root.GenZshCompletionFile,
		"fish/migrate.fish": func(path string) error { return root.GenFishCompletionFile(path, true) },
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := write(path); err != nil {
			return err
		}
	}
	return nil
}
