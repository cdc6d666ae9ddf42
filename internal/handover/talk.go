package handover

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/livemigrate/migrate/internal/wire"
)

// talk is the conversation on a session's control lane. One goroutine reads, so that bad news is heard while the others
// work: a Failure, an Abort and the end of the link go to alarm at once, besides being returned by next.
type talk struct {
	control  Channel // to send, for several goroutines
	inbox    chan *wire.Message
	requests chan []uint64 // slots of pages that the peer's tasks wait for; nil where nobody may ask
	done     chan struct{} // closed when the lane is at its end
	err      error         // why, readable once done is closed
	stop     context.CancelFunc
}

func newTalk(ctx context.Context, control Channel, alarm context.CancelCauseFunc) *talk {
	return beginTalk(ctx, control, make(chan []uint64, 64), alarm)
}

// newPeersTalk is the peer's, whom nobody asks for pages: requests that nobody takes would keep it from hearing of the end.
func newPeersTalk(ctx context.Context, control Channel, alarm context.CancelCauseFunc) *talk {
	return beginTalk(ctx, control, nil, alarm)
}

func beginTalk(ctx context.Context, control Channel, requests chan []uint64, alarm context.CancelCauseFunc) *talk {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	t := &talk{
		control: shareAll([]Channel{control})[0], inbox: make(chan *wire.Message, 8), requests: requests,
		done: make(chan struct{}), stop: stop,
	}
	go func() {
		defer close(t.done)
		t.err = t.read(ctx, alarm)
		alarm(t.err)
	}()
	return t
}

func (t *talk) read(ctx context.Context, alarm context.CancelCauseFunc) error {
	for {
		frame, err := t.control.Recv(ctx, nil)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return ErrLinkLost
			}
			return fmt.Errorf("%w: %w", ErrLinkLost, err)
		}
		m, err := wire.Decode(frame)
		if err != nil {
			return err
		}
		switch {
		case m.GetFailure() != nil:
			alarm(m.GetFailure().Err())
		case m.GetAbort() != nil:
			alarm(fmt.Errorf("%w: %s", errAbortedByPeer, m.GetAbort().GetReason()))
		case m.GetPageRequest() != nil && t.requests == nil:
			return fmt.Errorf("%w: the source asks for pages", wire.ErrMalformed)
		case m.GetPageRequest() != nil:
			select {
			case t.requests <- m.GetPageRequest().GetSlots():
			case <-ctx.Done():
				return ErrLinkLost
			}
			continue
		}
		select {
		case t.inbox <- m:
		case <-ctx.Done():
			return ErrLinkLost
		}
	}
}

// close ends the reading. The session itself is closed by whoever opened it.
func (t *talk) close() {
	t.stop()
	<-t.done
}

func (t *talk) send(ctx context.Context, m *wire.Message) error {
	frame, err := wire.Encode(m)
	if err != nil {
		return err
	}
	if err := t.control.Send(ctx, frame); err != nil {
		return fmt.Errorf("%w: %w", ErrLinkLost, err)
	}
	return nil
}

// next returns the next message. A Failure is returned as an error.
func (t *talk) next(ctx context.Context) (*wire.Message, error) {
	m, err := t.receive(ctx)
	if err != nil {
		return nil, err
	}
	if f := m.GetFailure(); f != nil {
		return nil, f.Err()
	}
	return m, nil
}

func (t *talk) receive(ctx context.Context) (*wire.Message, error) {
	select {
	case m := <-t.inbox:
		return m, nil
	default:
	}
	select {
	case m := <-t.inbox:
		return m, nil
	case <-ctx.Done():
		return nil, because(ctx, ctx.Err())
	case <-t.done:
		select { // what came before the end
		case m := <-t.inbox:
			return m, nil
		default:
			return nil, t.err
		}
	}
}

// expect returns the next message's body when get finds it there.
func expect[B any](ctx context.Context, t *talk, get func(*wire.Message) *B) (*B, error) {
	m, err := t.next(ctx)
	if err != nil {
		return nil, err
	}
	if body := get(m); body != nil {
		return body, nil
	}
	return nil, fmt.Errorf("%w: %T at the wrong moment", wire.ErrMalformed, m.GetBody())
}
