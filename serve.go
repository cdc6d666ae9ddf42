package migrate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/livemigrate/migrate/internal/keeper"
	"github.com/livemigrate/migrate/transport"
)

// ServeOptions says how to receive containers. nil means the defaults.
type ServeOptions struct {
	Host         Host
	Listen       string       // tls://[host]:port or unix:///path; default tls://:7440
	Bundles      string       // containers are received in directories here; default /var/lib/migrate/bundles
	Certificates Certificates // for tls://
	Allow        []string     // the names of the certificates that may connect; empty: all of the authority
	Limits       Limits
	Bound        func(string) // called with the address once connections are accepted; nil is fine
}

// Limits are what peers may take of a host that receives. Zero fields are no limits, but for Moves: 16.
type Limits = keeper.Limits

// Serve receives containers until ctx ends. To a move that is under way its end is a lost link: before COMMIT the source
// runs on and may try again, later it asks how the move ended once there is a Serve again. Each is held by a process of its
// own, so that none is left halfway, and containers that were received run on.
func Serve(ctx context.Context, o *ServeOptions) error {
	var options ServeOptions
	if o != nil {
		options = *o
	}
	router, err := newRouter(&options)
	if err != nil {
		return err
	}
	if options.Listen == "" {
		options.Listen = "tls://:" + transport.DefaultPort
	}
	address, err := transport.ParseAddress(options.Listen)
	if err != nil {
		return err
	}
	acceptor, err := transport.Listen(address, &transport.ListenOptions{
		Certificates: options.Certificates,
		Allow:        options.Allow,
		Divert:       router.Lane,
		Log:          router.Log,
	})
	if err != nil {
		return err
	}
	router.Sweep()
	if options.Bound != nil {
		options.Bound(acceptor.Addr())
	}
	var connections sync.WaitGroup
	defer connections.Wait()
	stop := context.AfterFunc(ctx, func() { _ = acceptor.Close() })
	defer stop()
	for {
		conn, peer, err := acceptor.AcceptConn(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return errors.Join(fmt.Errorf("accept: %w", err), acceptor.Close())
		}
		connections.Go(func() {
			if err := router.Route(ctx, conn, peer); err != nil && ctx.Err() == nil {
				router.Log.Warn("connection ended", "peer", peer, "error", err)
			}
		})
	}
}

// Receive serves one connection: what ssh starts on the peer, with the connection on standard input and output.
// Of the options Host, Bundles and Limits count.
func Receive(ctx context.Context, conn net.Conn, o *ServeOptions) error {
	router, err := newRouter(&ServeOptions{Host: o.Host, Bundles: o.Bundles, Limits: o.Limits})
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	router.Stays = true
	return router.Route(ctx, conn, "standard input")
}

func newRouter(o *ServeOptions) (*keeper.Router, error) {
	host, err := o.Host.fill()
	if err != nil {
		return nil, err
	}
	bundles, c := o.Bundles, o.Certificates
	if err := absolute(&bundles); err != nil {
		return nil, err
	}
	places := host.places(bundles)
	args := []string{"--root", places.Root}
	if host.CRIU != "" {
		args = append(args, "--criu", host.CRIU)
	}
	if host.Debug {
		args = append(args, "--debug")
	}
	if host.SystemdCgroup {
		args = append(args, "--systemd-cgroup")
	}
	args = append(args, "keeper", "--journals", places.Journals, "--bundles", places.Bundles)
	if places.NetworkHook != "" {
		args = append(args, "--network-hook", places.NetworkHook)
	}
	if c != (Certificates{}) {
		if err := errors.Join(absolute(&c.Cert), absolute(&c.Key), absolute(&c.CA)); err != nil {
			return nil, err
		}
		args = append(args, "--tls-cert", c.Cert, "--tls-key", c.Key, "--tls-ca", c.CA)
	}
	if l := o.Limits; l.Moves < 0 || l.Size < 0 || l.Time < 0 {
		return nil, fmt.Errorf("limits of %d moves, %d bytes, %v: want none below 0", l.Moves, l.Size, l.Time)
	}
	if o.Limits.Moves == 0 {
		o.Limits.Moves = keeper.DefaultMoves
	}
	args = append(args, fmt.Sprint("--max-moves=", o.Limits.Moves), fmt.Sprint("--max-size=", o.Limits.Size), fmt.Sprint("--max-time=", o.Limits.Time))
	for _, name := range o.Allow {
		args = append(args, "--allow="+name)
	}
	return &keeper.Router{Places: places, Program: host.Program, Args: args, Moves: o.Limits.Moves, Log: host.Log}, nil
}
