package monitor

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livemigrate/migrate/internal/sys/terminal"
)

const (
	// inputPause is how often a client whose input the container does not take is looked after.
	inputPause = 100 * time.Millisecond
	// heldPause is how soon held input goes on.
	heldPause = 10 * time.Millisecond
	// redrawPause lets a program see both sizes: one that is interrupted twice at once sees the second only.
	redrawPause = 50 * time.Millisecond
)

// input brings to the container what clients type: into its terminal, or the pipe that is its standard input. nil takes none.
type input struct {
	file     *os.File // in non-blocking mode
	terminal bool

	held atomic.Bool // the container is about to be dumped: what it gets now would be lost
	mu   sync.Mutex  // one writer at a time, so that a hold knows when none is left
}

// write returns when the container has taken everything, or the client that waits is gone.
func (i *input) write(p []byte, gone func() bool) error {
	for len(p) > 0 {
		n, err := i.put(p)
		p = p[n:]
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err // nobody reads it any more, nor will
		}
		if len(p) > 0 && gone() {
			return nil
		}
	}
	return nil
}

// put writes what it can in a while.
func (i *input) put(p []byte) (n int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.file.SetWriteDeadline(time.Now().Add(inputPause)); err != nil {
		return 0, err
	}
	if i.held.Load() { // looked at after the deadline is set: hold takes that back
		time.Sleep(heldPause)
		return 0, os.ErrDeadlineExceeded
	}
	return i.file.Write(p)
}

// hold keeps input back until release. When it returns none is on its way.
func (i *input) hold() {
	i.held.Store(true)
	_ = i.file.SetWriteDeadline(time.Unix(1, 0))
	i.mu.Lock() // whoever had it is through
	_ = i.file.SetWriteDeadline(time.Time{})
	i.mu.Unlock()
}

func (i *input) release() { i.held.Store(false) }

// resize gives the container's terminal the size of a client's. A client that is new wants to see what is there: a program
// that fills the screen draws it again when the size changes, so it does for a moment.
func (i *input) resize(to terminal.Size, redraw bool) {
	if !i.terminal || to.Rows == 0 || to.Columns == 0 {
		return
	}
	if redraw {
		now, err := terminal.ReadSize(i.file)
		if err == nil && now == to {
			_ = terminal.Resize(i.file, terminal.Size{Rows: to.Rows + 1, Columns: to.Columns})
			time.Sleep(redrawPause)
		}
	}
	_ = terminal.Resize(i.file, to) // no process has it open, or the container has ended
}
