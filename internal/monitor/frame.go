package monitor

import (
	"encoding/binary"
	"fmt"
	"io"
)

// After the answer to "attach" both sides send frames, until either closes the connection:
//
//	 0        1                5
//	+--------+----------------+-----------+
//	| kind   | length (BE)    | payload   |
//	+--------+----------------+-----------+
//
//	client    input    bytes for the container; only when the answer says that they are taken
//	          size     rows and columns, two bytes each
//	monitor   output   what the container writes from now on, as it is
//	          missed   eight bytes: so much output was left out here, because this client reads too slowly
//	          exit     how it ended, as in exit.json; the last frame
//	          moved    where it runs now; the last frame
const (
	frameHeader = 5
	maxFrame    = bufferSize

	frameInput  = 'i'
	frameSize   = 's'
	frameOutput = 'o'
	frameMissed = 'd'
	frameExit   = 'x'
	frameMoved  = 'm'
)

type frame struct {
	kind    byte
	payload []byte
}

func (f frame) writeTo(w io.Writer) error {
	buffer := make([]byte, frameHeader, frameHeader+len(f.payload))
	buffer[0] = f.kind
	binary.BigEndian.PutUint32(buffer[1:], uint32(len(f.payload)))
	_, err := w.Write(append(buffer, f.payload...))
	return err
}

func readFrame(r io.Reader) (f frame, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return f, err
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n > maxFrame {
		return f, fmt.Errorf("a frame of %d bytes", n)
	}
	f = frame{kind: header[0], payload: make([]byte, n)}
	_, err = io.ReadFull(r, f.payload)
	return f, err
}
