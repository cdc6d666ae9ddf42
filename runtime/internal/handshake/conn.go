package handshake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Type names a message of the second channel.
type Type string

// The messages; who sends which stands in the package's comment.
const (
	Mount    Type = "mount"
	Hooks    Type = "hooks"
	Ready    Type = "ready"
	Seccomp  Type = "seccomp"
	Failed   Type = "error"
	Continue Type = "continue"
)

// Message is one datagram. File is sent along with it as a descriptor.
type Message struct {
	Type  Type     `json:"type"`
	Index int      `json:"index,omitempty"` // Mount: which of Spec.Mounts
	FD    int      `json:"fd,omitempty"`    // Seccomp: number of the listener in init
	Text  string   `json:"text,omitempty"`  // Failed
	File  *os.File `json:"-"`
}

// messageMax bounds a datagram; the longest is an error's text.
const messageMax = 64 << 10

// Conn is one end of the second channel, a SOCK_SEQPACKET pair: a message arrives whole, with its descriptor.
type Conn struct {
	f *os.File
}

// Pair returns the two ends. The starter's does not block a thread, so that closing it ends a read.
func Pair() (starter *Conn, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make handshake channel: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
		return nil, nil, fmt.Errorf("make handshake channel: %w", err)
	}
	return NewConn(os.NewFile(uintptr(fds[0]), "handshake")), os.NewFile(uintptr(fds[1]), "handshake-child"), nil
}

// NewConn wraps an end of the channel and owns it.
func NewConn(f *os.File) *Conn { return &Conn{f: f} }

// Close ends the conversation.
func (c *Conn) Close() error { return c.f.Close() }

// Send writes one message. Without a file it is a plain write(2): after seccomp is loaded that call and read(2) are the
// only ones the handshake still needs, and a profile may notify on sendmsg(2).
func (c *Conn) Send(m *Message) error {
	if len(m.Text) > messageMax/2 {
		m.Text = m.Text[:messageMax/2]
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s message: %w", m.Type, err)
	}
	if m.File == nil {
		if _, err := c.f.Write(body); err != nil {
			return fmt.Errorf("send %s message: %w", m.Type, err)
		}
		return nil
	}
	rights := unix.UnixRights(int(m.File.Fd()))
	return c.raw(true, func(fd int) error {
		return unix.Sendmsg(fd, body, rights, nil, unix.MSG_NOSIGNAL)
	})
}

// Receive reads the next message; io.EOF when the other end closed the channel or died. The caller closes File.
func (c *Conn) Receive() (*Message, error) {
	body := make([]byte, messageMax)
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	err := c.raw(false, func(fd int) (err error) {
		n, oobn, _, _, err = unix.Recvmsg(fd, body, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("receive message: %w", err)
	}
	if n == 0 {
		return nil, io.EOF
	}
	m := &Message{}
	if err := json.Unmarshal(body[:n], m); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	if oobn > 0 {
		m.File, err = fileOf(oob[:oobn])
		if err != nil {
			return nil, fmt.Errorf("take descriptor of %s message: %w", m.Type, err)
		}
	}
	return m, nil
}

// Ask sends a message and waits for the answer of type want. An answer of type Failed is returned as its text.
func (c *Conn) Ask(m *Message, want Type) (*Message, error) {
	if err := c.Send(m); err != nil {
		return nil, err
	}
	receive := c.receivePlain
	if want == Mount {
		receive = c.Receive
	}
	answer, err := receive()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("the starter of the container is gone: %w", io.ErrUnexpectedEOF)
	case err != nil:
		return nil, err
	case answer.Type != want:
		return nil, fmt.Errorf("unexpected answer %q to %s", answer.Type, m.Type)
	}
	return answer, nil
}

// receivePlain reads a message that brings no file, by read(2) alone.
func (c *Conn) receivePlain() (*Message, error) {
	body := make([]byte, messageMax)
	n, err := c.f.Read(body)
	if err != nil {
		return nil, fmt.Errorf("receive message: %w", err)
	}
	m := &Message{}
	if err := json.Unmarshal(body[:n], m); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	return m, nil
}

func fileOf(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		if len(fds) > 0 {
			return os.NewFile(uintptr(fds[0]), "passed"), nil
		}
	}
	return nil, nil
}

// raw runs one system call on the socket, waiting while it would block.
func (c *Conn) raw(write bool, call func(fd int) error) error {
	rc, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	again := func(fd uintptr) bool {
		for {
			callErr = call(int(fd))
			if !errors.Is(callErr, unix.EINTR) {
				return !errors.Is(callErr, unix.EAGAIN)
			}
		}
	}
	if write {
		err = rc.Write(again)
	} else {
		err = rc.Read(again)
	}
	if err != nil {
		return err
	}
	return callErr
}
