package transport

import (
	"context"
	"errors"
	"io"
	"net"
)

// proxyBuffer is what one direction of a proxy holds: enough that a system call carries a quarter of a frame.
const proxyBuffer = 256 << 10

// Proxy copies both ways between two connections until both directions have ended, or ctx ends, or either fails; then it
// closes both. The end of one direction is passed on and leaves the other running. It returns the first failure.
func Proxy(ctx context.Context, a, b net.Conn) error {
	stop := context.AfterFunc(ctx, func() {
		abort(a)
		abort(b)
	})
	defer stop()
	results := make(chan error, 2)
	go func() { results <- pass(a, b) }()
	go func() { results <- pass(b, a) }()
	err := <-results
	if err != nil {
		abort(a)
		abort(b)
	}
	err = errors.Join(err, <-results)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cerr := errors.Join(a.Close(), b.Close()); err == nil && !errors.Is(cerr, net.ErrClosed) {
		err = cerr
	}
	return err
}

func pass(dst, src net.Conn) error {
	buf := make([]byte, proxyBuffer)
	if _, err := io.CopyBuffer(onlyWriter{dst}, onlyReader{src}, buf); err != nil {
		return err
	}
	return closeWrite(dst)
}

type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
