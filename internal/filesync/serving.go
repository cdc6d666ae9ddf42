package filesync

import (
	"context"
	"errors"
	"fmt"
)

// serving is one pass at the peer:
//
//  1. begin is received
//  2. full pass: a goroutine lists the tree, while changes come in and are applied
//  3. end: what is still needed is asked for; when nothing is, done is sent
type serving struct {
	t     *Target
	ch    Channel
	stats Stats
	apply *applier
	ended bool // the source has said end: this side speaks next
	// listing holds the result of the listing once it has ended; nil when there is none.
	listing chan error
	stop    context.CancelFunc
}

func (v *serving) run(ctx context.Context) error {
	frame, err := v.ch.Recv(ctx, nil)
	if err != nil {
		return fmt.Errorf("receive begin: %w", err)
	}
	kind, body, err := splitFrame(frame)
	if err == nil && kind == frameFail {
		err := decodeFail(body)
		return errors.Join(err, v.ch.Send(ctx, encodeFail(context.Canceled)))
	}
	if err == nil && kind != frameBegin {
		err = refuse("frame %s instead of begin", kind)
	}
	var pass passKind
	if err == nil {
		pass, err = decodeBegin(body)
	}
	if err == nil && pass == passIncremental && !v.t.based {
		err = ErrNoBase
	}
	if err != nil {
		return v.giveUp(ctx, err)
	}
	v.apply = newApplier(v.t, &v.stats)
	v.apply.inPlace = pass == passIncremental
	if pass == passFull {
		v.stats.Full, v.t.based = true, false
		if err := v.t.index.begin(); err != nil {
			return v.giveUp(ctx, err)
		}
		v.list(ctx)
	}
	err = v.receive(ctx)
	v.apply.broken = isBroken(ctx, err)
	if err = errors.Join(err, v.apply.close()); err != nil {
		var spoken *PeerError
		if errors.As(err, &spoken) {
			_ = v.endListing() // it was stopped; how it ended says nothing
			return errors.Join(err, v.ch.Send(ctx, encodeFail(context.Canceled)))
		}
		return v.giveUp(ctx, err)
	}
	if pass == passFull {
		v.t.based = true
		v.t.index.sweep()
	}
	return v.ch.Send(ctx, encodeDone(&outcome{
		Files: v.stats.Files, Bytes: v.stats.Bytes, Removed: v.stats.Removed, Dropped: v.stats.Dropped,
	}))
}

func (v *serving) list(ctx context.Context) {
	ctx, v.stop = context.WithCancel(ctx)
	v.listing = make(chan error, 1)
	go func() { v.listing <- v.t.list(ctx, v.ch, &v.stats) }()
}

// endListing stops the listing where it is, and returns how it ended.
func (v *serving) endListing() error {
	if v.listing == nil {
		return nil
	}
	v.stop()
	return <-v.listing
}

// receive applies frames until the source has said end and nothing more is needed.
func (v *serving) receive(ctx context.Context) error {
	var buf []byte
	for {
		var err error
		if buf, err = v.ch.Recv(ctx, buf); err != nil {
			return fmt.Errorf("receive changes: %w", &channelError{err})
		}
		kind, body, err := splitFrame(buf)
		if err != nil {
			return err
		}
		switch kind {
		case frameChanges:
			if err := v.apply.frame(ctx, body); err != nil {
				return err
			}
		case frameEnd:
			v.ended = true
			done, err := v.answer(ctx, len(body) > 0 && body[0]&1 != 0)
			if done || err != nil {
				return err
			}
		case frameFail:
			return decodeFail(body)
		default:
			return refuse("frame %s among the changes", kind)
		}
	}
}

// answer asks for what could not be applied; done when that is nothing.
func (v *serving) answer(ctx context.Context, waived bool) (done bool, err error) {
	if v.listing != nil { // the source says end only after the listing's last line
		err := <-v.listing
		v.stop()
		v.listing = nil
		if err != nil {
			return false, err
		}
	}
	needs, err := v.apply.settle()
	if err != nil || len(needs) == 0 || waived {
		return true, err
	}
	b := []byte{byte(frameNeed)}
	for _, path := range needs {
		if len(b)+len(path) > batchSize { // the rest will be found missing again
			break
		}
		b = appendNeed(b, path)
	}
	v.ended = false
	return false, v.ch.Send(ctx, b)
}

// channelError is a failure of the channel itself: there is nobody to tell.
type channelError struct{ err error }

func (e *channelError) Error() string { return e.err.Error() }
func (e *channelError) Unwrap() error { return e.err }

// isBroken tells a source that is gone, or has given up, from what is wrong on this side or with what it sends.
func isBroken(ctx context.Context, err error) bool {
	var channel *channelError
	var peer *PeerError
	return ctx.Err() != nil || errors.As(err, &channel) || errors.As(err, &peer)
}

// giveUp tells the source why, and reads on until it has stopped, so that the channel can be used again.
func (v *serving) giveUp(ctx context.Context, cause error) error {
	cause = classify(cause)
	_ = v.endListing() // it was stopped; why it ended says nothing
	var broken *channelError
	if errors.As(cause, &broken) {
		return cause
	}
	if err := v.ch.Send(ctx, encodeFail(cause)); err != nil {
		return errors.Join(cause, err)
	}
	if v.ended {
		return cause
	}
	var buf []byte
	for {
		var err error
		if buf, err = v.ch.Recv(ctx, buf); err != nil {
			return cause
		}
		switch kind, _, err := splitFrame(buf); {
		case err != nil, kind == frameEnd, kind == frameFail:
			return cause
		}
	}
}
