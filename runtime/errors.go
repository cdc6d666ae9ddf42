package runtime

import (
	"errors"
	"fmt"
)

// Engines written for runc compare these texts: they are its.
var (
	// ErrInvalidID: ids are letters, digits, and "_+-."; choose another.
	ErrInvalidID = errors.New("invalid container ID format")
	// ErrExists: the id is taken. Choose another, or delete that container.
	ErrExists = errors.New("container with given ID already exists")
	// ErrNotExist: there is no such container under this root.
	ErrNotExist = errors.New("container does not exist")
	// ErrNotRunning: the container has no live init. Start it, or delete it.
	ErrNotRunning = errors.New("container not running")
	// ErrRunning: what was asked for needs a stopped container. Kill it first, or delete with force.
	ErrRunning = errors.New("container still running")
	// ErrStarted: start was called before.
	ErrStarted = errors.New("cannot start an already running container")
	// ErrStopped: init is gone; only delete is left.
	ErrStopped = errors.New("cannot start a container that has stopped")
	// ErrExecStopped: the same, said to exec.
	ErrExecStopped = errors.New("cannot exec in a stopped container")
	// ErrPaused: exec would hang until resume. Resume first, or exec with IgnorePaused.
	ErrPaused = errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	// ErrMoving: the container is frozen by a move that has not ended, and may run at the peer already. Wait for the move,
	// or end it with `migrate resolve`.
	ErrMoving = errors.New("container is being moved (`migrate resolve` ends an interrupted move)")
	// ErrNotPaused: resume of a container that runs.
	ErrNotPaused = errors.New("container not paused")
)

// CorruptError is a state that cannot be read. Remove with force deletes the container all the same.
type CorruptError struct {
	ID  string
	Err error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("read state of container %s: %v (delete --force removes it)", e.ID, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// TransitionError is a change that there is not: a container in state From cannot become To.
type TransitionError struct {
	From, To Status
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("invalid state transition from %s to %s", e.From, e.To)
}
