package handover

import (
	"context"
	"errors"
	"fmt"

	"github.com/livemigrate/migrate/internal/wire"
)

var (
	// ErrOutcomeUnknown: the link broke between COMMIT and DONE. The source is frozen; call Resolve when the peer can be
	// reached again.
	ErrOutcomeUnknown = errors.New("outcome unknown: the container is frozen at the source")
	// ErrLinkLost: the connection to the peer broke. Before COMMIT the source runs on.
	ErrLinkLost = errors.New("connection to the peer lost")
	// ErrStillFrozen: the move failed, and then the container could not be thawed either. Mend the cause that the error
	// names, then call Resolve.
	ErrStillFrozen = errors.New("the container could not be thawed")
	// ErrGone: the move was ended, but there was nothing left to run on at the source. Start the container again.
	ErrGone = errors.New("the container does not exist at the source any more, and the peer does not have it")
	// ErrCancelled: the user stopped the move in time; the source runs on.
	ErrCancelled = errors.New("move cancelled")

	// errOnlyAsked ends a receiver whose source wanted to know whether the container could be taken.
	errOnlyAsked = errors.New("the source only asked")
	// errAbortedByPeer ends a receiver whose source gave up; it is never shown to a user of the source.
	errAbortedByPeer = errors.New("the source gave up")
	// errStalled ends a transfer inside the freeze that does not move any more.
	errStalled = errors.New("the transfer stands still")
	// errSilentCaller ends a session that does not say what it is for.
	errSilentCaller = fmt.Errorf("nothing was said within %v", greetLimit)
	// errResumeTooLate ends a peer's half that hangs between COMMIT and "running".
	errResumeTooLate = fmt.Errorf("the container did not resume within %v", resumeLimit)
)

// refusedError marks a container that its own host would not let go.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// isRefusal tells a no, from here or from the peer, from a failure to ask.
func isRefusal(err error) bool {
	if _, ok := errors.AsType[*refusedError](err); ok {
		return true
	}
	_, ok := errors.AsType[*wire.RemoteError](err)
	return ok
}

// isHopeless tells that the peer will not say anything else about a container that lacks memory.
func isHopeless(err error) bool {
	return errors.Is(err, wire.ErrOwed) || errors.Is(err, wire.ErrEnded) || errors.Is(err, wire.ErrDiedHere)
}

// unknown says what became of a move whose end is not known, and what is to be done where. owing: it was let run at the peer.
func unknown(err error, owing bool, container, source string) error {
	where, here := "", "here"
	if source != "" {
		where, here = "on "+source+" ", "there"
	}
	switch {
	case isHopeless(err):
		return fmt.Errorf("%w: %w: %srun \"migrate resolve --force-source %s\" and it runs on %s from where it was frozen, "+
			"or \"migrate resolve --force-peer %s\" to remove that copy", ErrOutcomeUnknown, err, where, container, here, container)
	case owing:
		return fmt.Errorf("%w, and runs at the peer without all of its memory, which waits here: "+
			"%srun \"migrate resolve %s\" when the peer can be reached, and the rest is sent: %w", ErrOutcomeUnknown, where, container, err)
	default:
		return fmt.Errorf("%w: %srun \"migrate resolve %s\" when the peer can be reached: %w", ErrOutcomeUnknown, where, container, err)
	}
}

// because returns what ended ctx rather than the error that followed from its end.
func because(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case err == nil || cause == nil:
		return err
	case errors.Is(cause, context.Canceled):
		return ErrCancelled
	default:
		return cause
	}
}
