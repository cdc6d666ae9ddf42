package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// past is a deadline that wakes whoever is blocked.
var past = time.Unix(1, 0)

// interrupt makes the end of ctx wake a blocked read or write, by a deadline in the past. set is the connection's
// SetReadDeadline or SetWriteDeadline; the function returned takes the deadline away again and must be called.
func interrupt(ctx context.Context, set func(time.Time) error) (release func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = set(past) // fails only on a closed connection, where nothing blocks
	})
	return func() {
		if !stop() {
			<-fired
			_ = set(time.Time{})
		}
	}
}

// ctxError returns ctx's error in place of the timeout by which interrupt made it felt.
func ctxError(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// lost turns an end of stream where none may be into ErrLinkLost, and a connection's other errors too, except those that
// say already what happened.
func lost(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrLinkLost) || errors.Is(err, ErrCertificate) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrLinkLost, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%w: %w", ErrLinkLost, err)
}
