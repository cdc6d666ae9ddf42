package preflight

import (
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/sys/netns"
)

// judgeNamespace finds what is in the way of a network namespace by path.
func (a *Arrival) judgeNamespace() Findings {
	var f Findings
	switch path := namespacePath(a.Spec); {
	case path == "":
		if a.Namespace != nil {
			if err := a.Namespace.Validate(); err != nil {
				f.add(Blocker, NetworkNamespace, "", "%v", err)
			}
		}
	case a.Namespace == nil: // it is the source's own
		if is, err := netns.IsAt(path); err != nil || !is {
			f.add(Blocker, NetworkNamespace, "give the container --network, or no path", "its network namespace %s is its host's, and is not on this host", path)
		}
	case a.Namespace.Path != path:
		f.add(Blocker, NetworkNamespace, "", "the record of its network is of %q, and its config names %q", a.Namespace.Path, path)
	default:
		f = a.judgeRecord()
	}
	return f
}

func (a *Arrival) judgeRecord() Findings {
	var f Findings
	f.judgeCut()
	return append(f, Namespace(a.Namespace, a.Hooked)...)
}

// Namespace finds what is in the way of a network namespace at its path on this host, right now: it changes with what others do.
// hooked as in Record.Fit.
func Namespace(record *netspace.Record, hooked bool) Findings {
	var f Findings
	if err := record.Fit(hooked); err != nil {
		cure := "let serve have a --network-hook, or make that bridge on this host"
		switch {
		case errors.Is(err, netspace.ErrOther):
			cure = "remove what is there, or give it those addresses: the container's engine may have left it"
		case errors.Is(err, netspace.ErrPlace):
			cure = "make it there on this host, connected and with those addresses, and down: it is used as it is"
		case errors.Is(err, netspace.ErrNoIPv6):
			cure = "use IPv6 on this host, or a --network-hook that gives the container other addresses"
		}
		f.add(Blocker, NetworkNamespace, cure, "%v", err)
		return f
	}
	if ns, err := netspace.Open(record.Path); ns != nil && err == nil { // as it fits, it is used
		defer ns.Close()
		others, err := strangers(ns, nil)
		if err != nil {
			f.add(Blocker, NetworkNamespace, "", "%v", err)
		}
		f = append(f, others...)
	}
	return f
}

func namespacePath(spec *specs.Spec) string {
	if spec.Linux == nil {
		return ""
	}
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			return ns.Path
		}
	}
	return ""
}
