package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/keeper"
	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/transport"
)

// PushOptions says how to move. nil means the defaults.
type PushOptions struct {
	Host           Host
	Certificates   Certificates  // for a tls:// peer
	Mode           Mode          // which pages are at the peer when it resumes there; default Auto
	MaxDowntime    time.Duration // what Auto aims at; default 300 ms
	AutoConverge   bool          // Auto: slow the container down, by its cpu quota, where it is away for too long otherwise
	MaxRounds      int           // over the memory while the container runs; default 30
	Feed           bool          // memory goes in pages where the peer takes them, instead of in CRIU's images
	Lanes          int           // parallel connections for images and memory; default 2
	Compress       string        // pages on the way: "auto" (default; where that is faster than the link), "none" or "zstd"
	BandwidthLimit int64         // bytes per second over all lanes; 0: none
	Keep           bool          // leave the stopped container at the source
	Retry          time.Duration // how long to try again after a lost link; default 30 s; see NoRetry
	Volumes        string        // bind mounts: "copy" (default), "shared" or "refuse"
	TCP            string        // TCP connections: "" (kept where the address moves along, else closed), "established" or "close"
	Event          func(Event)   // called for each event, one at a time; nil drops them

	// Abandon, once closed, makes Push return with Unknown as soon as COMMIT was sent. The move goes on without it.
	Abandon <-chan struct{}
}

// NoRetry as PushOptions.Retry ends a move at the first lost link.
const NoRetry time.Duration = -1

// Push moves the running container id to the peer, an address such as ssh://root@host-b, tls://host-b:7440 or
// unix:///run/migrate.sock.
//
// The result tells the outcome; the error is that of a move that could not even begin (no such container, a bad address).
// When ctx ends before COMMIT was sent, or this process dies, the container runs on here; after COMMIT Push waits for the
// end. It needs root, and Linux and CRIU as `scripts/setup` checks them.
func Push(ctx context.Context, id, peer string, o *PushOptions) (*Result, error) {
	var options PushOptions
	if o != nil {
		options = *o
	}
	host, err := options.Host.fill()
	if err != nil {
		return nil, err
	}
	order, err := options.order(host, id, peer)
	if err != nil {
		return nil, err
	}
	if err := keeper.CheckOrder(order); err != nil {
		return nil, err
	}
	line, err := keeper.Start(host.Program, []string{"keeper"}, order)
	if err != nil {
		return nil, err
	}
	defer func() { _ = line.Close() }()
	result, err := options.follow(ctx, line, id)
	if errors.Is(err, keeper.ErrKeeperGone) {
		return options.salvage(context.WithoutCancel(ctx), host, order)
	}
	return result, err
}

func (o *PushOptions) order(host Host, id, peer string) (*keeper.Order, error) {
	if _, err := transport.ParseAddress(peer); err != nil {
		return nil, err
	}
	certificates := o.Certificates
	if err := absolute(&certificates.Cert, &certificates.Key, &certificates.CA); err != nil {
		return nil, err
	}
	mode, err := handover.ParseMode(string(o.Mode))
	if err != nil {
		return nil, err
	}
	order := &keeper.Order{
		Places:         host.places(""),
		Container:      id,
		Peer:           peer,
		Certificates:   certificates,
		CRIU:           host.CRIU,
		SystemdCgroup:  host.SystemdCgroup,
		Mode:           mode,
		MaxDowntime:    o.MaxDowntime,
		MaxRounds:      o.MaxRounds,
		Converge:       o.AutoConverge,
		Feed:           o.Feed,
		Lanes:          o.Lanes,
		Compress:       o.Compress,
		BandwidthLimit: o.BandwidthLimit,
		Keep:           o.Keep,
		Retry:          o.Retry,
		Volumes:        o.Volumes,
		TCP:            o.TCP,
		Debug:          host.Debug,
	}
	if order.Lanes == 0 {
		order.Lanes = 2
	}
	switch order.Retry {
	case 0:
		order.Retry = 30 * time.Second
	case NoRetry:
		order.Retry = 0
	}
	switch order.Volumes {
	case "":
		order.Volumes = keeper.VolumesCopy
	case keeper.VolumesCopy, keeper.VolumesShared, keeper.VolumesRefuse:
	default:
		return nil, fmt.Errorf("volumes %q: want copy, shared or refuse", order.Volumes)
	}
	switch order.TCP {
	case "", keeper.TCPEstablished, keeper.TCPClose:
	default:
		return nil, fmt.Errorf("tcp %q: want established or close", order.TCP)
	}
	switch order.Compress {
	case "":
		order.Compress = keeper.CompressAuto
	case keeper.CompressAuto, keeper.CompressNone, keeper.CompressZstd:
	default:
		return nil, fmt.Errorf("compress %q: want auto, none or zstd", order.Compress)
	}
	if order.Lanes < 1 || order.Lanes >= transport.MaxLanes {
		return nil, fmt.Errorf("%d lanes: want 1 to %d", order.Lanes, transport.MaxLanes-1)
	}
	if order.MaxDowntime < 0 || order.MaxRounds < 0 {
		return nil, fmt.Errorf("a downtime of %v at most, %d rounds: neither can be negative", order.MaxDowntime, order.MaxRounds)
	}
	if order.Converge && mode != Auto {
		return nil, fmt.Errorf("mode %s: only auto has a downtime to converge to", mode)
	}
	if order.BandwidthLimit < 0 {
		return nil, fmt.Errorf("bandwidth limit %d: want bytes per second", order.BandwidthLimit)
	}
	return order, nil
}

// follow passes the keeper's events on until the result.
func (o *PushOptions) follow(ctx context.Context, line *keeper.Line, id string) (*Result, error) {
	type heard struct {
		event report.Event
		err   error
	}
	events := make(chan heard)
	gone := make(chan struct{})
	defer close(gone)
	go func() {
		for {
			e, err := line.Next()
			select {
			case events <- heard{e, err}:
			case <-gone:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	cancelled := ctx.Done()
	var abandon <-chan struct{} // before COMMIT the result is sure to come soon
	for {
		select {
		case h := <-events:
			if h.err != nil {
				return nil, h.err
			}
			if o.Event != nil {
				h.event.ID = id
				o.Event(h.event)
			}
			if h.event.Result != nil {
				return h.event.Result, nil
			}
			if h.event.Phase == report.Resume {
				abandon = o.Abandon
			}
		case <-cancelled:
			cancelled = nil // once is enough; the result still comes
			if err := line.Cancel(); err != nil {
				return nil, fmt.Errorf("cancel the move: %w", err)
			}
		case <-abandon:
			return o.conclude(&Result{Outcome: Unknown, Container: id, Error: ErrOutcomeUnknown.Error()}), nil
		}
	}
}

// salvage ends a move whose keeper died before its result.
func (o *PushOptions) salvage(ctx context.Context, host Host, order *keeper.Order) (*Result, error) {
	resolve := &ResolveOptions{Host: host, Certificates: o.Certificates, Patience: order.Retry}
	outcome, err := keeper.Salvage(ctx, order, resolve.order(host))
	result := &Result{Outcome: outcome, Container: order.Container, Error: keeper.ErrKeeperGone.Error()}
	if err != nil {
		result.Error = fmt.Sprintf("%s: %s", result.Error, line.Of(err))
	}
	return o.conclude(result), nil
}

// conclude tells of a result that comes from here and not from the keeper.
func (o *PushOptions) conclude(result *Result) *Result {
	if o.Event != nil {
		o.Event(Event{Event: "result", ID: result.Container, Result: result})
	}
	return result
}
