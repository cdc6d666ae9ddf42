package transport

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed: Close was called on this side. Nothing is wrong.
	ErrClosed = errors.New("session is closed")
	// ErrPeerClosed: the peer has said goodbye and takes no more frames. What it sent before can still be received.
	ErrPeerClosed = errors.New("peer has closed the session")
	// ErrLinkLost: the connection ended without a goodbye. Connect again with Resume and the same token.
	ErrLinkLost = errors.New("connection to the peer is lost")
	// ErrPeerSilent: no heartbeat came for the whole silence period; the link or the peer's host is gone. Connect again
	// with Resume when it is back.
	ErrPeerSilent = errors.New("peer is silent")
	// ErrFrameTooLarge: a frame is longer than MaxFrame, on the control lane than MaxControl. Nothing of it was sent;
	// one that came from the peer was not read, and the lane is of no more use.
	ErrFrameTooLarge = errors.New("frame is too large")
	// ErrBadFrame: the peer sent bytes that are no frame. The lane is of no more use.
	ErrBadFrame = errors.New("not a frame")
	// ErrNotMigrate: whatever answered or called is no migrate. Check the address; over ssh, that the peer's shell
	// prints nothing when it starts.
	ErrNotMigrate = errors.New("the other side does not speak migrate's protocol")
	// ErrUnknownToken: the other side has no such session to resume, or its owner is another peer.
	ErrUnknownToken = errors.New("no session with this token")
	// ErrTokenInUse: a new session came with the token of an older one. Make a new token, or resume.
	ErrTokenInUse = errors.New("a session with this token exists already")
	// ErrBusy: the other side has as many sessions or connections as it allows. Try again later.
	ErrBusy = errors.New("too many connections")
	// ErrRefused: the other side does not want this session; the text says why.
	ErrRefused = errors.New("the other side refuses the session")
	// ErrSuperseded: the peer has resumed the session over new connections; this one is the dead half of the old.
	ErrSuperseded = errors.New("the peer has resumed the session elsewhere")
	// ErrCertificate: the two sides' certificates do not fit; the text says whose, why and how to mend it.
	ErrCertificate = errors.New("certificate refused")
	// ErrForeignUser: the process at the other end of a unix socket belongs to another user, and neither is root.
	ErrForeignUser = errors.New("the other side belongs to another user")
)

// VersionError says that the two sides speak different versions of the transport's protocol. Install the same release
// on both.
type VersionError struct {
	Ours, Theirs uint16
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("the other side speaks version %d of the protocol and this side version %d: install the same release on both",
		e.Theirs, e.Ours)
}
