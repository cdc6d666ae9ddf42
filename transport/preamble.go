package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/livemigrate/migrate/internal/line"
)

// Version of the protocol that this package speaks: preamble, answer, frames and heartbeats. Both sides must have the
// same one. What travels inside the frames has versions of its own.
const Version uint16 = 1

// MaxLanes is the greatest number of data lanes of a session.
const MaxLanes = 64

// A connection begins with the caller's preamble and the other side's answer; numbers are big-endian. Magic and version
// stay where they are in every version to come, so that any two can tell each other what they speak.
//
//	 0       4         6      7    8         10        12          16              48
//	+-------+---------+------+----+---------+---------+-----------+---------------+
//	| MIGR  | version | kind | 0  | index   | lanes   | attempt   | token         |  preamble
//	+-------+---------+------+----+---------+---------+-----------+---------------+
//	+-------+---------+------+----+---------+----------------------+
//	| MIGR  | version | code | 0  | length  | text, length bytes   |               answer
//	+-------+---------+------+----+---------+----------------------+
const (
	magic        = "MIGR"
	openingSize  = 6 // magic and version
	preambleSize = 48
	answerSize   = 10
	maxAnswer    = 1024 // of the text
)

// openingTimeout bounds how long a connection may take over its preamble, and a server over a TLS handshake: a caller
// that dribbles a byte a second must not hold a place for ever.
const openingTimeout = 10 * time.Second

// Kind says what a connection is for.
type Kind uint8

const (
	// KindControl opens a new session.
	KindControl Kind = 1
	// KindLane is one data lane of the session that the token names.
	KindLane Kind = 2
	// KindResume opens the session again that the token names, after its connections were lost.
	KindResume Kind = 3
)

func (k Kind) String() string {
	switch k {
	case KindControl:
		return "control"
	case KindLane:
		return "lane"
	case KindResume:
		return "resume"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// Preamble opens a connection and says where it belongs.
type Preamble struct {
	Kind    Kind
	Token   Token
	Index   uint16 // of a lane: 0 to Lanes-1; else 0
	Lanes   uint16 // how many data lanes the session has, at most MaxLanes
	Attempt uint32 // chosen anew by each Connect, so that a late lane of a broken attempt joins no newer one
}

func (p *Preamble) check() error {
	switch {
	case p.Kind < KindControl || p.Kind > KindResume:
		return fmt.Errorf("%w: %s", ErrNotMigrate, p.Kind)
	case p.Lanes > MaxLanes:
		return fmt.Errorf("%w: %d lanes, at most %d", ErrRefused, p.Lanes, MaxLanes)
	case p.Kind == KindLane && p.Index >= p.Lanes, p.Kind != KindLane && p.Index != 0:
		return fmt.Errorf("%w: lane %d of %d", ErrNotMigrate, p.Index, p.Lanes)
	}
	return nil
}

// WritePreamble opens conn, and must be the first to write to it. What ReadPreamble returned can be written to another
// connection, whose owner then answers in this one's place.
func WritePreamble(ctx context.Context, conn net.Conn, p Preamble) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("write preamble: %w", err)
	}
	release := interrupt(ctx, conn.SetWriteDeadline)
	defer release()
	if _, err := conn.Write(p.append(nil)); err != nil {
		return fmt.Errorf("write preamble: %w", ctxError(ctx, err))
	}
	return nil
}

func (p *Preamble) append(b []byte) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, Version)
	b = append(b, byte(p.Kind), 0)
	b = binary.BigEndian.AppendUint16(b, p.Index)
	b = binary.BigEndian.AppendUint16(b, p.Lanes)
	b = binary.BigEndian.AppendUint32(b, p.Attempt)
	return append(b, p.Token[:]...)
}

// ReadPreamble reads the preamble of an accepted connection, and not a byte more. It waits at most ten seconds. The
// caller answers: with WriteAnswer, or by handing the connection on. A *VersionError and ErrNotMigrate are worth an
// answer too.
func ReadPreamble(ctx context.Context, conn net.Conn) (Preamble, error) {
	ctx, cancel := context.WithTimeout(ctx, openingTimeout)
	defer cancel()
	release := interrupt(ctx, conn.SetReadDeadline)
	defer release()
	p, err := readPreamble(conn)
	if err != nil {
		return Preamble{}, fmt.Errorf("read preamble: %w", ctxError(ctx, err))
	}
	return p, nil
}

func readPreamble(r io.Reader) (Preamble, error) {
	var b [preambleSize]byte
	if err := readOpening(r, b[:openingSize]); err != nil {
		return Preamble{}, err
	}
	if _, err := io.ReadFull(r, b[openingSize:]); err != nil {
		return Preamble{}, lost(err)
	}
	p := Preamble{
		Kind:    Kind(b[6]),
		Index:   binary.BigEndian.Uint16(b[8:]),
		Lanes:   binary.BigEndian.Uint16(b[10:]),
		Attempt: binary.BigEndian.Uint32(b[12:]),
		Token:   Token(b[16:]),
	}
	if b[7] != 0 {
		return Preamble{}, fmt.Errorf("%w: reserved byte is %d", ErrNotMigrate, b[7])
	}
	if err := p.check(); err != nil {
		return Preamble{}, err
	}
	return p, nil
}

// readOpening reads magic and version into b. It looks at what has come before it waits for more, so that a stranger is
// told at once.
func readOpening(r io.Reader, b []byte) error {
	for n := 0; n < len(b); {
		m, err := r.Read(b[n:])
		n += m
		if !strings.HasPrefix(magic, string(b[:min(n, len(magic))])) {
			return fmt.Errorf("%w: it sent %q", ErrNotMigrate, append(b[:n:n], rest(r)...))
		}
		if err != nil && n < len(b) {
			return lost(err)
		}
	}
	if v := binary.BigEndian.Uint16(b[len(magic):]); v != Version {
		return &VersionError{Ours: Version, Theirs: v}
	}
	return nil
}

// rest reads a little of what else a stranger has sent already: its first words tell the user what it is.
func rest(r io.Reader) []byte {
	conn, ok := r.(net.Conn)
	if !ok || conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)) != nil {
		return nil
	}
	b := make([]byte, 80)
	n, _ := io.ReadFull(conn, b) // whatever came is enough
	line, _, _ := bytes.Cut(b[:n], []byte("\n"))
	return line
}

// An answer's code names the sentinel, so that errors.Is works across hosts.
var answerCodes = []error{nil, ErrNotMigrate, ErrUnknownToken, ErrTokenInUse, ErrBusy, ErrRefused, ErrCertificate}

const (
	answerRefused = 5
	answerVersion = 255 // the answer's own version field says the rest
)

// WriteAnswer answers a preamble: nil accepts the connection, anything else refuses it. After a refusal it waits a
// second at most for the caller to hang up; then the connection is to be closed.
func WriteAnswer(ctx context.Context, conn net.Conn, refusal error) error {
	ctx, cancel := context.WithTimeout(ctx, openingTimeout)
	defer cancel()
	release := interrupt(ctx, conn.SetDeadline)
	defer release()
	if _, err := conn.Write(appendAnswer(nil, refusal)); err != nil {
		return fmt.Errorf("answer preamble: %w", ctxError(ctx, err))
	}
	if refusal == nil {
		return nil
	}
	if err := closeWrite(conn); err != nil {
		return fmt.Errorf("answer preamble: %w", err)
	}
	// Closing a socket with unread bytes in it resets the stream, and may destroy the answer before it is read.
	_ = conn.SetReadDeadline(time.Now().Add(refusalPatience))
	_, _ = io.CopyN(io.Discard, conn, 1<<16)
	return nil
}

const refusalPatience = time.Second

func appendAnswer(b []byte, refusal error) []byte {
	var code byte
	var text string
	if refusal != nil {
		text = refusal.Error()
		text = strings.ToValidUTF8(text[:min(len(text), maxAnswer)], "")
		code = answerRefused
		for c, sentinel := range answerCodes[1:] {
			if errors.Is(refusal, sentinel) {
				code = byte(c + 1)
			}
		}
		if _, ok := errors.AsType[*VersionError](refusal); ok {
			code = answerVersion
		}
	}
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, Version)
	b = append(b, code, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

// ReadAnswer waits until the other side has answered the preamble, and returns nil or its refusal. Only ctx bounds the
// wait: the other side may have to start the session's owner first.
func ReadAnswer(ctx context.Context, conn net.Conn) error {
	release := interrupt(ctx, conn.SetReadDeadline)
	defer release()
	if err := readAnswer(conn); err != nil {
		return ctxError(ctx, err)
	}
	return nil
}

func readAnswer(r io.Reader) error {
	var b [answerSize]byte
	if err := readOpening(r, b[:openingSize]); err != nil {
		return err
	}
	if _, err := io.ReadFull(r, b[openingSize:]); err != nil {
		return lost(err)
	}
	code, n := b[6], binary.BigEndian.Uint16(b[8:])
	if n > maxAnswer {
		return fmt.Errorf("%w: an answer of %d bytes", ErrNotMigrate, n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return lost(err)
	}
	switch {
	case code == 0:
		return nil
	case int(code) < len(answerCodes):
		return &refusal{sentinel: answerCodes[code], text: line.Printable(string(text))}
	default:
		return &refusal{sentinel: ErrRefused, text: line.Printable(string(text))}
	}
}

// refusal is an error that was made on the other side: its text, and the sentinel that it is one of.
type refusal struct {
	sentinel error
	text     string
}

func (r *refusal) Error() string { return "the other side refuses: " + r.text }
func (r *refusal) Unwrap() error { return r.sentinel }
