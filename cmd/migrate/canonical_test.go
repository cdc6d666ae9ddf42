package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestEveryLongFlagMayHaveOneDash(t *testing.T) {
	root := newRootCommand(&globals{}, "migrate")
	flags := 0
	var visit func(cmd *cobra.Command, path []string)
	visit = func(cmd *cobra.Command, path []string) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if len(f.Name) < 2 {
				return
			}
			flags++
			given := append(slices.Clone(path), "-"+f.Name)
			want := append(slices.Clone(path), "--"+f.Name)
			if f.NoOptDefVal == "" { // a value may look like a flag, and is left alone
				given, want = append(given, "-help"), append(want, "-help")
			}
			if got, err := canonical(root, given); err != nil || !slices.Equal(got, want) {
				t.Errorf("%q is taken for %q, %v; want %q", given, got, err, want)
			}
		})
		for _, below := range cmd.Commands() {
			visit(below, append(slices.Clone(path), below.Name()))
		}
	}
	visit(root, nil)
	if flags < 80 {
		t.Errorf("only %d flags were seen", flags)
	}
}

func TestShellsCanAskForCompletion(t *testing.T) {
	h := newHost(t)
	for line, want := range map[string]string{
		"__complete ru":                  "run\tCreate and run a container",
		"__completeNoDesc ru":            "run\n",
		"__complete run --pid":           "--pid-file",
		"__complete --root /x kill --al": "--all",
	} {
		got := h.run(strings.Fields(line)...)
		if got.code != 0 || !strings.HasPrefix(got.stdout, want) {
			t.Errorf("%s: exit code %d, %q %s; want %q", line, got.code, got.stdout, got.stderr, want)
		}
	}
}

func TestHelpIsGivenForOneDash(t *testing.T) {
	h := newHost(t)
	if got := h.ok("-help"); !strings.Contains(got, "GLOBAL OPTIONS:") {
		t.Errorf("-help prints %q", got)
	}
	for _, line := range []string{"run", "exec", "kill", "ps", "pki issue"} {
		want := h.ok(append(strings.Fields(line), "--help")...)
		if got := h.ok(append(strings.Fields(line), "-help")...); got != want || !strings.Contains(got, "USAGE:") {
			t.Errorf("%s -help prints %q, with two dashes it is %q", line, got, want)
		}
	}
	if got := h.run("exec", "none", "ls", "-help"); !strings.Contains(got.stderr, "container does not exist") {
		t.Errorf("the command's own flag is taken from it: %q%q", got.stdout, got.stderr)
	}
}
