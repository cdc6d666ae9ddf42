package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// proxyBuffer is what one direction of a proxy holds: enough that a system call carries a quarter of a frame.
	proxyBuffer = 256 << 10
	// proxyPatience is how long one direction may go on after the other has ended: longer than a session waits in Close.
	// ssh passes no end of one direction on while the remote command runs, so waiting for ever would hide that a session's
	// owner is gone.
	proxyPatience = closePatience + 3*time.Second
)

// Proxy copies both ways between two connections of a session, until both directions have ended, or ctx ends, or either
// fails; then it closes both. When one direction ends, that is passed on, and the other gets five seconds more. Proxy
// returns the first failure.
func Proxy(ctx context.Context, a, b net.Conn) error {
	abortBoth := func() {
		abort(a)
		abort(b)
	}
	stop := context.AfterFunc(ctx, abortBoth)
	defer stop()
	results := make(chan error, 2)
	var copying sync.WaitGroup
	defer copying.Wait()
	copying.Go(func() { results <- pass(a, b) })
	copying.Go(func() { results <- pass(b, a) })

	if err := <-results; err != nil {
		abortBoth()
		return ctxCause(ctx, err)
	}
	var late atomic.Bool
	timer := time.AfterFunc(proxyPatience, func() {
		late.Store(true)
		abortBoth()
	})
	defer timer.Stop()
	if err := <-results; err != nil && !late.Load() {
		abortBoth()
		return ctxCause(ctx, err)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// ctxCause is ctx's error if that is what closed the connections.
func ctxCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// pass copies one direction, and passes its end on.
func pass(dst, src net.Conn) error {
	buf := make([]byte, proxyBuffer)
	if _, err := io.CopyBuffer(onlyWriter{dst}, onlyReader{src}, buf); err != nil {
		return err
	}
	return closeWrite(dst)
}

// io.CopyBuffer ignores its buffer when either side has ReadFrom or WriteTo, which hold 32 KiB.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
