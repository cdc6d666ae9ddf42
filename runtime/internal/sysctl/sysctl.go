// Package sysctl writes kernel parameters of a container's own namespaces. Their names have two spellings, as in
// sysctl(8): net.ipv4.conf.eth0/100.rp_filter and net/ipv4/conf/eth0.100/rp_filter are one. The first separator decides
// which one it is; the other character belongs to a name.
package sysctl

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/cyphar/filepath-securejoin/pathrs-lite/procfs"
	"golang.org/x/sys/unix"
)

// Dotted is the name with dots as separators. An error is a name that no file below /proc/sys has: one that climbs
// ("net/../kernel/core_pattern") would be judged by its beginning and written where it leads.
func Dotted(name string) (string, error) {
	dotted := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		dotted = swap(name)
	}
	if file := swap(dotted); !strings.ContainsAny(file, "/") || path.Clean("/"+file) != "/"+file {
		return "", fmt.Errorf("sysctl %q is not the name of one", name)
	}
	return dotted, nil
}

// swap changes one spelling into the other: the one with slashes is the file's path.
func swap(name string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}

// Write sets the parameters for the calling process's namespaces. It does so through a procfs that is verified to be one
// and bare of what was mounted on it: /proc may be the image's, or changed by another container at this very moment
// (CVE-2025-52881).
func Write(values map[string]string) error {
	if len(values) == 0 {
		return nil
	}
	proc, err := procfs.OpenUnsafeProcRoot()
	if err != nil {
		return fmt.Errorf("open procfs: %w", err)
	}
	defer proc.Close()
	for name, value := range values {
		if err := write(proc, name, value); err != nil {
			return fmt.Errorf("write sysctl %s = %q: %w", name, value, err)
		}
	}
	return nil
}

func write(proc *procfs.Handle, name, value string) error {
	dotted, err := Dotted(name)
	if err != nil {
		return err
	}
	handle, err := proc.OpenRoot("sys/" + swap(dotted))
	if err != nil {
		return err
	}
	defer handle.Close()
	f, err := pathrs.Reopen(handle, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
