package transport

import (
	"context"
	"sync"
	"time"
)

// Throttle holds what is sent to a number of bytes a second, over all lanes and sessions that share it. Control lanes
// are exempt. A nil *Throttle holds nothing back.
type Throttle struct {
	perSecond float64

	mu   sync.Mutex
	next time.Time // when all that was let through is paid for
}

// NewThrottle makes a throttle; zero or less means no limit.
func NewThrottle(bytesPerSecond int64) *Throttle {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &Throttle{perSecond: float64(bytesPerSecond)}
}

// throttleBurst is how much unused time counts later: enough that a sender's own pauses cost it nothing, too little to
// flood the link.
const throttleBurst = 50 * time.Millisecond

// urgentKey marks a context.
type urgentKey struct{}

// Urgent is a context for a Send that is not held back: a Throttle counts what it sends, and lets others wait for that.
func Urgent(ctx context.Context) context.Context { return context.WithValue(ctx, urgentKey{}, true) }

// wait blocks until n more bytes may be sent. A frame may go out as soon as those before it are paid for.
func (t *Throttle) wait(ctx context.Context, stop <-chan struct{}, n int) error {
	if t == nil {
		return nil
	}
	delay := t.reserve(n)
	if delay <= 0 || ctx.Value(urgentKey{}) != nil {
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-stop:
		return ErrClosed
	}
}

func (t *Throttle) reserve(n int) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if oldest := now.Add(-throttleBurst); t.next.Before(oldest) {
		t.next = oldest
	}
	delay := t.next.Sub(now)
	t.next = t.next.Add(time.Duration(float64(n) / t.perSecond * float64(time.Second)))
	return delay
}
