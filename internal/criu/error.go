package criu

import (
	"errors"
	"strings"
	"syscall"
)

var (
	// ErrNotFound: there is no CRIU. The text says where it was looked for and how to get it.
	ErrNotFound = errors.New("criu not found")
	// ErrNotRoot: CRIU was about to be started without the rights it needs. Run as root of the host.
	ErrNotRoot = errors.New("criu needs root")
	// ErrGone: the child ended in the middle of a conversation. After a dump's pre-dump notification the tasks may need
	// checkpoint.Recover.
	ErrGone = errors.New("criu ended without an answer")
)

// Error is a failed request.
type Error struct {
	Op      string        // "dump", "restore", ...
	Cause   string        // the line of the log that explains it, without its time and place
	Hint    string        // what cures it; empty when it is not known
	LogPath string        // the whole log; empty when there is none
	Errno   syscall.Errno // as CRIU answered, 0 when it gave none

	err error
}

// Error is one line: what failed, why, and the cure.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("criu " + e.Op + ": ")
	switch {
	case e.Cause != "":
		b.WriteString(e.Cause)
	case e.Errno != 0:
		b.WriteString(e.Errno.Error())
	default:
		b.WriteString("failed without a reason")
	}
	if e.Hint != "" {
		b.WriteString(": " + e.Hint)
	}
	if e.LogPath != "" {
		b.WriteString(" (log: " + e.LogPath + ")")
	}
	return b.String()
}

// Unwrap is what the conversation itself reported: ErrGone, or CRIU's message.
func (e *Error) Unwrap() error {
	return e.err
}

// inFlight is of a listening socket with connections that its program has not accepted.
const inFlight = "In-flight connection"

// InFlight tells that connections were refused which the program had not accepted yet. They can be left out of a dump.
func (e *Error) InFlight() bool { return strings.Contains(e.Cause, inFlight) }

// Passing tells whether the cause is a state that a process passes through: the same request may succeed a moment later.
func (e *Error) Passing() bool {
	for _, fragment := range []string{
		"Zombies with threads", "Control messages in queue", "Non-empty write queue on an in-flight socket", "Unable to freeze cgroup", "Timeout reached", inFlight,
	} {
		if strings.Contains(e.Cause, fragment) {
			return true
		}
	}
	return false
}
