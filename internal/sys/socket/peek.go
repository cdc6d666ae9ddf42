package socket

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Peek waits until something has come and copies what there is into b, without taking it. The connection's read deadline is
// gone afterwards.
func Peek(ctx context.Context, conn *net.TCPConn, b []byte) (n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("peek: %w", err)
	}
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() { // whoever reads next may have more time
			<-fired
			_ = conn.SetReadDeadline(time.Time{})
		}
	}()
	var failed error
	err = raw.Read(func(fd uintptr) (done bool) {
		n, _, failed = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	if err == nil {
		err = failed
	}
	if err == nil && n == 0 {
		err = net.ErrClosed
	}
	if err != nil {
		return 0, fmt.Errorf("peek: %w", err)
	}
	return n, nil
}
