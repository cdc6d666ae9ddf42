package keeper

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
)

// How long a move waits for the stops of others: an outcome that is unknown may take long to become known.
const (
	turnLimit  = 10 * time.Second
	yieldLimit = time.Second
)

// turns is the handover's Turns: a lock on a directory, which ends with the process that has it.
type turns struct {
	dir string
	log *slog.Logger
}

// inTurn lets one move at a time open its connections over ssh: each has several, and an sshd drops what it is asked for by
// strangers all at once (MaxStartups, 10 by default).
func (o *Order) inTurn(dial handover.Dial, log *slog.Logger) handover.Dial {
	if !strings.HasPrefix(o.Peer, "ssh:") {
		return dial
	}
	doors := turns{o.logs(""), log}
	return func(ctx context.Context, why handover.Why) (handover.Session, error) {
		if why == handover.ToMove {
			next, _ := doors.Take(ctx)
			defer next()
		}
		return dial(ctx, why)
	}
}

// Take implements handover.Turns.
func (t turns) Take(ctx context.Context) (next func(), waited time.Duration) {
	began := time.Now()
	lock := t.lock(ctx, syscall.LOCK_EX, turnLimit)
	return func() { _ = lock.Close() }, time.Since(began)
}

// Yield implements handover.Turns.
func (t turns) Yield(ctx context.Context) {
	_ = t.lock(ctx, syscall.LOCK_SH, yieldLimit).Close()
}

// lock is a descriptor that has the lock, or has waited for it in vain.
func (t turns) lock(ctx context.Context, how int, limit time.Duration) *os.File {
	dir, err := os.Open(t.dir)
	if err != nil {
		t.log.Warn("this move takes no turns with others", "error", err)
		return dir
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for syscall.Flock(int(dir.Fd()), how|syscall.LOCK_NB) != nil {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return dir
		}
	}
	return dir
}
