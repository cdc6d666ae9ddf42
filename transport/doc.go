// Package transport carries authenticated, framed streams between two hosts. It knows nothing of containers.
//
// A [Session] is one control lane and up to [MaxLanes] data lanes, each a connection of its own, so that a bulk transfer
// never delays a word of the protocol. What happens, in order:
//
//  1. [NewDialer] takes an [Address] (tls://, ssh:// or unix://) and makes authenticated byte streams to the peer;
//     [Listen] makes the other end of tls:// and unix://, sshd and the command it starts that of ssh://.
//  2. Every connection opens with a [Preamble]: protocol version, what the connection is for, the session's [Token].
//     The other side answers once: accepted, or refused and why. A program in the middle may read the preamble, choose the
//     process that owns the session, write the preamble again there and copy bytes from then on ([Proxy]).
//  3. [Connect] dials the control connection, then the lanes; a [Hub] puts the accepted connections together again.
//  4. Frames flow: length first, refused before anything is allocated. Both sides send heartbeats on the control lane,
//     which callers never see; a peer that stays silent ends the session with [ErrPeerSilent].
//  5. [Session.Close] says goodbye on every lane, and waits until the peer has taken what was sent. Without that goodbye
//     an end of stream is [ErrLinkLost], never io.EOF.
//  6. After a loss the same token with [ConnectOptions.Resume] reaches the same owner again. Frames are not replayed:
//     what is in doubt is for the caller's protocol to ask.
//
// The bytes on the wire are drawn in docs/protocol.md.
package transport
