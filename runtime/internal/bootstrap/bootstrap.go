// Package bootstrap makes or joins the namespaces of a container's process, before Go runs in it.
//
//  1. the parent starts its own program again with [EnvFD] naming a socket, and sends one [Message] over it
//  2. a C constructor in that process reads it, joins and creates the namespaces, and forks init
//  3. the parent reads the answer with [ReadReply]: init's pid, or the reason why there is none
//  4. the first process ends; init, which is a child of the parent, goes on into Go's main
//
// In every other run of the program the constructor looks for one environment variable and does nothing.
package bootstrap

// The constructor lives in bootstrap.c; importing "C" is what links it in.

// #cgo CFLAGS: -Wall -Wextra -Wno-unused-parameter -std=gnu11
import "C"

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
)

// EnvFD is the environment variable that holds the number of the bootstrap socket.
const EnvFD = "_MIGRATE_BOOTSTRAP"

// InitName is the name of init, in /proc/PID/comm, until it executes its program. The same value stands in bootstrap.c.
const InitName = "migrate:init"

const (
	recordSize = 256
	recordText = 4 // the pid, as int32 in host order, comes first
)

// Error is what the C stage could not do, in its own words.
type Error struct{ Text string }

func (e *Error) Error() string { return "set up namespaces: " + e.Text }

// ReadReply reads the answer of the C stage: init's pid, or its *Error. [io.EOF] when the stage died without a word.
// What the stage tells before it, because the message asked for that, goes to log.
func ReadReply(r io.Reader, log *slog.Logger) (int, error) {
	for {
		var record [recordSize]byte
		_, err := io.ReadFull(r, record[:])
		if err != nil {
			return 0, err
		}
		pid := int32(binary.NativeEndian.Uint32(record[:]))
		if pid > 0 {
			return int(pid), nil
		}
		text, _, _ := bytes.Cut(record[recordText:], []byte{0})
		if pid < 0 {
			return 0, &Error{Text: string(text)}
		}
		log.Debug(string(text))
	}
}
