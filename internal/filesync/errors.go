package filesync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

var (
	// ErrNoSpace: the peer's disk or quota is full. Free space there and synchronise again; what has arrived is kept.
	ErrNoSpace = errors.New("no space left at the peer")
	// ErrRefused: the other side sent what it must not: a path that leaves the root, more than the limits allow, a malformed
	// frame. Nothing outside the root was touched. Trying again will not help.
	ErrRefused = errors.New("refused by the file synchronisation")
	// ErrVersion: the two sides speak different versions of the frames. Install the same release on both.
	ErrVersion = errors.New("file synchronisation versions differ")
	// ErrNoBase: an incremental pass was sent to a peer that never saw a full one. Run a Pass with a new Source.
	ErrNoBase = errors.New("incremental pass without a full one before it")
	// ErrUnstable: a file was still being written inside the frozen window, by something that is not frozen. End that writer.
	ErrUnstable = errors.New("file changes while it is read")
	// ErrDigest: content arrived damaged. Try again.
	ErrDigest = errors.New("content does not match its digest")
	// ErrBusy: another process uses the index, so another synchronisation of this tree is under way.
	ErrBusy = errors.New("index is in use")
	// ErrReadOnly: the peer's filesystem is mounted read-only.
	ErrReadOnly = errors.New("read-only filesystem at the peer")
	// ErrPermission: the peer may not do what the tree needs (owners, device nodes). Run it as root.
	ErrPermission = errors.New("not permitted at the peer")
)

// code is how an error crosses to the other side.
type code uint64

const (
	codeOther code = iota + 1
	codeNoSpace
	codeRefused
	codeVersion
	codeNoBase
	codeUnstable
	codeDigest
	codeReadOnly
	codePermission
	codeCanceled
)

// PeerError is what the other side reported. errors.Is finds the sentinel behind it.
type PeerError struct {
	Text string
	code code
}

func (e *PeerError) Error() string { return "peer: " + e.Text }

// Unwrap returns the sentinel that the other side had, or nil.
func (e *PeerError) Unwrap() error {
	switch e.code {
	case codeNoSpace:
		return ErrNoSpace
	case codeRefused:
		return ErrRefused
	case codeVersion:
		return ErrVersion
	case codeNoBase:
		return ErrNoBase
	case codeUnstable:
		return ErrUnstable
	case codeDigest:
		return ErrDigest
	case codeReadOnly:
		return ErrReadOnly
	case codePermission:
		return ErrPermission
	case codeCanceled:
		return context.Canceled
	}
	return nil
}

func codeOf(err error) code {
	switch {
	case errors.Is(err, ErrNoSpace):
		return codeNoSpace
	case errors.Is(err, ErrRefused):
		return codeRefused
	case errors.Is(err, ErrVersion):
		return codeVersion
	case errors.Is(err, ErrNoBase):
		return codeNoBase
	case errors.Is(err, ErrUnstable):
		return codeUnstable
	case errors.Is(err, ErrDigest):
		return codeDigest
	case errors.Is(err, ErrReadOnly):
		return codeReadOnly
	case errors.Is(err, ErrPermission):
		return codePermission
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return codeCanceled
	}
	return codeOther
}

// classify gives an error of applying the sentinel that tells the caller what to do.
func classify(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	}
	return err
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// vanished says that a name is gone, or became something else, between being listed and being opened.
func vanished(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) ||
		errors.Is(err, syscall.ESTALE) || errors.Is(err, syscall.ENXIO)
}
