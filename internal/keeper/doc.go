// Package keeper is the process that outlives the command: on both hosts the handover runs in a process of its own, in its
// own session, so that the death of push, serve or ssh costs nothing.
//
//	push ──socketpair── keeper (source) ══ tls, ssh, unix ══ serve or receive ──unix socket── keeper (peer)
//
// The source's keeper is started by push and told what to do in one JSON line; it answers with the move's events. When push
// dies the line ends: before COMMIT the keeper rolls back, later it carries on.
//
// The peer's keeper is started by whoever accepts a session's first connection ([Router]) and listens on a unix socket
// named after the session's token. serve and receive merely copy bytes to it, so a lost connection is one that the source
// makes again. Once the container runs here the keeper, being the parent of its init, becomes its monitor where one is
// wanted, and ends otherwise.
//
// The package joins internal/handover, which knows only its own interfaces, to the runtime, to CRIU and to the transport.
package keeper
