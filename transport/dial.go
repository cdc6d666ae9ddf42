package transport

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Dialer makes connections to one peer.
type Dialer interface {
	// DialConn makes one byte stream to the peer. The stream is authenticated by the time the first byte is read from it.
	// ctx bounds only the making.
	DialConn(ctx context.Context) (net.Conn, error)
	// String names the peer in messages.
	String() string
}

// DialOptions holds what the schemes need. nil means the defaults.
type DialOptions struct {
	// Certificates are for tls://, which does not work without.
	Certificates Certificates
	// ServerName is the name that the certificate of a tls:// peer must have; default the address's host.
	ServerName string

	// SSHCommand is the ssh program and its first arguments, for the shell; default the environment's MIGRATE_SSH, else
	// "ssh". SSHArgs follow it, such as "-F", file.
	SSHCommand string
	SSHArgs    []string
	// RemoteCommand is what ssh runs on the peer, for the shell there; default "migrate receive".
	RemoteCommand string

	Timeout time.Duration // for one connection; default 10 s. ssh:// takes its own ConnectTimeout from it
	Log     *slog.Logger  // nil: discard
}

const defaultDialTimeout = 10 * time.Second

// NewDialer returns the dialer of an address. It reads certificates, so that a wrong file is told here, and dials
// nothing.
func NewDialer(addr Address, o *DialOptions) (Dialer, error) {
	var opts DialOptions
	if o != nil {
		opts = *o
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultDialTimeout
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	switch addr.Scheme {
	case TLS:
		return newTLSDialer(addr, &opts)
	case SSH:
		return newSSHDialer(addr, &opts), nil
	case Unix:
		return &unixDialer{addr: addr, timeout: opts.Timeout}, nil
	default:
		return nil, fmt.Errorf("dial %s: not an address", addr)
	}
}
