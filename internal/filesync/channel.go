package filesync

import "context"

// Channel is an ordered stream of frames to the other side, each at most MaxFrame long. It has one reader and one writer at
// a time; Recv returns io.EOF after a clean end. A transport.Lane is one.
type Channel interface {
	Send(ctx context.Context, parts ...[]byte) error
	Recv(ctx context.Context, buf []byte) ([]byte, error)
}
