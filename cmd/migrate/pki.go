package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/livemigrate/migrate/internal/pki"
)

// defaultPKIDir is where `pki` keeps the authority.
const defaultPKIDir = "/etc/migrate/pki"

func newPKICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Make the certificates for moves over tls://",
		Long: `Two hosts trust each other over tls:// when both have a certificate of the same authority.
Make the authority once, on a machine of your choice; issue one certificate a host; copy the
three files named there to it.`,
		Example: `  migrate pki init
  migrate pki issue host-a --host 10.0.0.1 --out ./host-a
  migrate pki issue host-b --host 10.0.0.2 --out ./host-b`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newPKIInitCommand(), newPKIIssueCommand())
	return cmd
}

func newPKIInitCommand() *cobra.Command {
	var authority pki.Authority
	var days int
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Make a certificate authority",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			authority.Dir = defaultPKIDir
			if len(args) == 1 {
				authority.Dir = args[0]
			}
			authority.Life = time.Duration(days) * 24 * time.Hour
			files, err := pki.Init(authority)
			if err != nil {
				return overwriteHint(err)
			}
			printAuthority(cmd.OutOrStdout(), files, authority.Dir)
			return nil
		},
	}
	cmd.Flags().IntVar(&days, "days", int(pki.DefaultAuthorityLife.Hours()/24), "how long it is valid")
	cmd.Flags().BoolVar(&authority.Force, "force", false, "overwrite an authority, which makes its certificates worthless")
	return cmd
}

func printAuthority(w io.Writer, f *pki.Files, dir string) {
	fmt.Fprintf(w, "certificate  %s   (valid until %s)\n", f.Cert, f.Expires.Format(time.DateOnly))
	fmt.Fprintf(w, "private key  %s   (keep it here: whoever has it can move containers to your hosts)\n", f.Key)
	next := "migrate pki issue HOST"
	if dir != defaultPKIDir {
		next += " --dir " + dir
	}
	fmt.Fprintf(w, "next, for every host: %s\n", next)
}

func newPKIIssueCommand() *cobra.Command {
	var request pki.Request
	var days int
	cmd := &cobra.Command{
		Use:   "issue NAME",
		Short: "Make a host's certificate",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Name = args[0]
			request.Life = time.Duration(days) * 24 * time.Hour
			files, err := pki.Issue(request)
			if errors.Is(err, pki.ErrNoAuthority) {
				return fmt.Errorf("%w: make one with `migrate pki init`, or name its directory with --dir", err)
			}
			if err != nil {
				return overwriteHint(err)
			}
			printCertificate(cmd.OutOrStdout(), files, request.Name)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&request.Hosts, "host", nil, "host name or IP address by which peers reach it, besides NAME (may be repeated)")
	flags.StringVar(&request.Dir, "dir", defaultPKIDir, "the authority's directory")
	flags.StringVar(&request.Out, "out", "", "directory for the files (default: the authority's)")
	flags.IntVar(&days, "days", int(pki.DefaultLife.Hours()/24), "how long it is valid")
	flags.BoolVar(&request.Force, "force", false, "overwrite the files of an earlier certificate")
	return cmd
}

func printCertificate(w io.Writer, f *pki.Files, name string) {
	fmt.Fprintf(w, "certificate  %s   (for %s; valid until %s)\n", f.Cert, strings.Join(f.Hosts, ", "), f.Expires.Format(time.DateOnly))
	fmt.Fprintf(w, "private key  %s\n", f.Key)
	fmt.Fprintf(w, "authority    %s\n", f.CA)
	fmt.Fprintf(w, "next: copy the three to %s, and use them there:\n", name)
	fmt.Fprintf(w, "  migrate serve --listen tls://:7440 --tls-cert %s --tls-key %s --tls-ca %s\n", f.Cert, f.Key, f.CA)
}

// overwriteHint says how to overwrite on purpose.
func overwriteHint(err error) error {
	if errors.Is(err, pki.ErrExists) {
		return fmt.Errorf("%w: --force overwrites it", err)
	}
	return err
}
