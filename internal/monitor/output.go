package monitor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	bufferSize = 64 << 10 // a pipe's capacity
	// hangupPause is how long a terminal that no process has open is left alone before it is looked at again.
	hangupPause = 100 * time.Millisecond
)

// output carries what the container writes from its pipe or terminal to the log.
type output struct {
	ended <-chan struct{} // closed when init has ended

	over atomic.Bool // a reader that is to stop does not wait for the end of a flood

	mu     sync.Mutex // held from a read to the end of its write, so that nothing is ever in between; not for longer
	log    *logFile
	show   *audience // nil without one
	source *os.File
	raw    syscall.RawConn
	buffer []byte
}

// open sets where the output comes from: a descriptor in non-blocking mode, known to Go's poller.
func (o *output) open(source *os.File) error {
	raw, err := source.SyscallConn()
	if err != nil {
		return fmt.Errorf("open output: %w", err)
	}
	o.source, o.raw, o.buffer = source, raw, make([]byte, bufferSize)
	return nil
}

// read returns when all is read: at the pipe's end of file, which comes when no process has the other end any more, or
// when init has ended and no process has the terminal open.
func (o *output) read() {
	for over := false; ; {
		hangup := false
		err := o.raw.Read(func(fd uintptr) bool {
			pumpErr := o.pump(fd)
			hangup = errors.Is(pumpErr, syscall.EIO)
			return !errors.Is(pumpErr, syscall.EAGAIN) // else wait in the poller for more
		})
		if err != nil || !hangup || over {
			return
		}
		// A terminal can be opened again: a hang-up is its end only without init, after a last look.
		select {
		case <-o.ended:
			over = true
		case <-time.After(hangupPause):
		}
	}
}

// drain moves what is there at this moment into the log, and returns the offset behind it. Since the lock is held from a
// read to the end of its write, nothing is on its way when drain finds nothing more.
func (o *output) drain() (offset int64, err error) {
	if o.source == nil {
		return o.position(), nil
	}
	// Control and not Read: that one belongs to the reader, which sits in it.
	err = o.raw.Control(func(fd uintptr) { _ = o.pump(fd) })
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return 0, fmt.Errorf("drain output: %w", err)
	}
	return o.position(), nil
}

// pump reads until there is no more: nil at the end of file, EAGAIN when more may come, EIO when no process has the
// terminal open. A terminal's read first brings in what the kernel still holds on the way (n_tty), so EAGAIN is true for
// it too.
func (o *output) pump(fd uintptr) error {
	for {
		n, err := o.carry(fd)
		switch {
		case n > 0 && o.over.Load():
			return syscall.EAGAIN
		case n > 0, errors.Is(err, syscall.EINTR):
		default:
			return err
		}
	}
}

// carry brings one read's worth on. The lock is given up in between: a container that never stops writing would else keep
// everybody else from it.
func (o *output) carry(fd uintptr) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err = syscall.Read(int(fd), o.buffer)
	if n > 0 {
		o.log.write(o.buffer[:n])
		o.show.show(o.buffer[:n])
	}
	return n, err
}

// admit lets a client have all that comes behind the offset that it is told.
func (o *output) admit(conn *net.UnixConn, answer response) (*guest, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	answer.Offset = o.position()
	return o.show.admit(conn, answer)
}

// position does not wait for a log that is slow.
func (o *output) position() int64 { return o.log.offset.Load() }

// reopenLog is after a rotation. A new file that cannot be opened leaves the old one in use.
func (o *output) reopenLog() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.log.reopen()
}

func (o *output) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.source != nil {
		o.source.Close()
	}
	return o.log.close()
}
