package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/transport"
)

// doors are the two ways into a peer's keeper. Control connections, and all that come over ssh, are copied here by serve or
// receive and come in at the keeper's socket. A lane is too busy for a third process: serve hands over the connection itself,
// at a second socket. Of a lane over TLS the handshake is made here; of one over a unix socket the preamble comes along.
type doors struct {
	transport.Acceptor
	handed       *net.UnixListener
	certificates transport.Certificates
	allow        []string // of the callers that those are for
	strangers    *transport.Strangers
	log          *slog.Logger

	lanes chan net.Conn
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	busy  sync.WaitGroup
}

// lanesSocket is where connections are handed over. No longer than the other one: a socket's path has 107 bytes.
func lanesSocket(socket string) string { return strings.TrimSuffix(socket, ".sock") + ".lane" }

// maxUnknownLanes is how many lanes may be in their handshakes: anybody who reads along knows the name of the session.
const maxUnknownLanes = 2 * transport.MaxLanes

func openDoors(o *PeerOrder, log *slog.Logger) (*doors, error) {
	socket := o.Socket
	copied, err := transport.Listen(transport.Address{Scheme: transport.Unix, Path: socket}, &transport.ListenOptions{Log: log})
	if err != nil {
		return nil, err
	}
	err = os.Remove(lanesSocket(socket)) // of a keeper of this session that was killed: the first socket is ours, so it is gone
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for lanes: %w", err), copied.Close())
	}
	handed, err := net.ListenUnix("unix", &net.UnixAddr{Name: lanesSocket(socket), Net: "unix"})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for lanes: %w", err), copied.Close())
	}
	d := &doors{
		Acceptor: copied, handed: handed, certificates: o.Certificates, allow: o.Allow,
		strangers: transport.NewStrangers(maxUnknownLanes), log: log, lanes: make(chan net.Conn),
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.busy.Go(d.take)
	return d, nil
}

// AcceptConn returns the next connection from either door.
func (d *doors) AcceptConn(ctx context.Context) (net.Conn, string, error) {
	type accepted struct {
		conn net.Conn
		peer string
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	copied := make(chan accepted, 1)
	go func() {
		conn, peer, err := d.Acceptor.AcceptConn(ctx)
		copied <- accepted{conn, peer, err}
	}()
	select {
	case a := <-copied:
		return a.conn, a.peer, a.err
	case lane := <-d.lanes:
		cancel()
		if a := <-copied; a.err == nil { // both at once: the other one goes back in line
			d.busy.Go(func() { d.offer(a.conn) })
		}
		return lane, d.peer(), nil
	}
}

// peer is the name that a copied connection has, which a session's lanes must share: the user that serve runs as.
func (d *doors) peer() string { return fmt.Sprintf("user %d", os.Getuid()) }

func (d *doors) take() {
	for {
		conn, err := d.handed.AcceptUnix()
		if err != nil {
			return
		}
		d.busy.Go(func() {
			if err := d.receive(conn); err != nil {
				d.log.Warn("lane refused", "cause", err)
			}
		})
	}
}

// asTLS is said along with a connection whose handshake is still to be made. Otherwise a preamble is.
const asTLS = "tls"

// handLimit is how long a connection that is handed over may be on its way: its sender has it ready before it knocks.
const handLimit = 5 * time.Second

// receive takes one connection over.
func (d *doors) receive(from *net.UnixConn) error {
	if err := from.SetReadDeadline(time.Now().Add(handLimit)); err != nil {
		return errors.Join(fmt.Errorf("take over lane: %w", err), from.Close())
	}
	defer context.AfterFunc(d.ctx, func() { _ = from.Close() })()
	file, said, err := descriptor.Receive(from)
	if err := errors.Join(err, from.Close()); err != nil {
		return err
	}
	raw, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("take over lane: %w", err)
	}
	if unix, ok := raw.(*net.UnixConn); ok && said != asTLS {
		d.offer(transport.Handed(unix, []byte(said)))
		return nil
	}
	leave, _ := d.strangers.Enter(raw)
	lane, _, err := transport.AcceptTLS(d.ctx, raw, d.certificates, d.allow)
	if stayed := leave(); err != nil || !stayed {
		return errors.Join(err, raw.Close())
	}
	d.offer(lane)
	return nil
}

func (d *doors) offer(conn net.Conn) {
	select {
	case d.lanes <- conn:
	case <-d.ctx.Done():
		_ = conn.Close() // came too late
	}
}

// Close closes both doors.
func (d *doors) Close() error {
	d.stop()
	err := errors.Join(d.handed.Close(), d.Acceptor.Close())
	d.busy.Wait()
	return err
}

// Lane hands a lane over TLS to the keeper of its session, before the handshake, and closes it here. It returns false, and
// has done nothing, when there is none.
func (r *Router) Lane(session string, conn net.Conn) bool {
	return r.hand(r.Places.socketOf(session), conn, asTLS) && conn.Close() == nil
}

// hand gives a keeper a duplicate of a connection. false: there is no such keeper, or the connection can't be handed over.
func (r *Router) hand(socket string, conn net.Conn, say string) bool {
	filer, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return false
	}
	keeper, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: lanesSocket(socket), Net: "unix"})
	if err != nil {
		return false
	}
	defer func() { _ = keeper.Close() }()
	file, err := filer.File()
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }()
	return descriptor.Send(keeper, file, say) == nil
}
