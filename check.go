package migrate

import (
	"context"

	"github.com/livemigrate/migrate/internal/keeper"
	"github.com/livemigrate/migrate/internal/report"
)

// What Check finds.
type (
	// Finding is one thing that stands against a move, or is worth knowing before it, with its cure.
	Finding = report.Finding
	// Severity is how much it matters.
	Severity = report.Severity
)

// The severities of findings.
const (
	Blocker = report.Blocker // the move would fail
	Warning = report.Warning // it may fail, or cost more than it should
	Note    = report.Note    // good to know
)

// CheckOptions says what move is meant. nil means the defaults.
type CheckOptions struct {
	Host         Host
	Certificates Certificates // for a tls:// peer
	Mode         Mode         // default Auto
	Feed         bool         // as PushOptions.Feed
	Volumes      string       // as PushOptions.Volumes
	TCP          string       // as PushOptions.TCP
}

// CheckResult is what was found, what matters most first.
type CheckResult struct {
	Container   string    `json:"container,omitempty"`
	Source      string    `json:"source"`                // this host
	Destination string    `json:"destination,omitempty"` // the peer, when it would take the container
	Movable     bool      `json:"movable"`               // there is no blocker
	Findings    []Finding `json:"findings"`
}

// Check tells whether a move would work, and changes nothing on either host: the container runs on undisturbed. Without an
// id only this host is looked at, without a peer this host and the container.
//
// An error is a container that does not exist, a bad address, or a peer that could not be asked; the result then holds what
// was found here, or is nil. It needs root, for less can be seen without.
func Check(ctx context.Context, id, peer string, o *CheckOptions) (*CheckResult, error) {
	var options CheckOptions
	if o != nil {
		options = *o
	}
	host, err := options.Host.fill()
	if err != nil {
		return nil, err
	}
	order := &keeper.Order{Places: host.places(""), CRIU: host.CRIU, SystemdCgroup: host.SystemdCgroup, Feed: options.Feed, Mode: options.Mode}
	if peer != "" {
		push := PushOptions{Certificates: options.Certificates, Mode: options.Mode, Feed: options.Feed, Volumes: options.Volumes, TCP: options.TCP}
		if order, err = push.order(host, id, peer); err != nil {
			return nil, err
		}
	}
	order.Container, order.TCP = id, options.TCP
	if order.Volumes = options.Volumes; order.Volumes == "" {
		order.Volumes = keeper.VolumesCopy
	}
	found, err := keeper.Check(ctx, order, host.Log)
	if found == nil {
		return nil, err
	}
	result := &CheckResult{
		Container: id, Source: found.Source, Destination: found.Destination, Movable: !found.Findings.Blocked(), Findings: found.Findings,
	}
	if result.Findings == nil {
		result.Findings = []Finding{}
	}
	return result, err
}
