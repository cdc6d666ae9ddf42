package transport

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestThrottleIsSharedByLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := NewThrottle(1 << 20)
		start := time.Now()
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				for range 8 {
					if err := throttle.wait(t.Context(), nil, 128<<10); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		// 4 MiB at 1 MiB a second; the last frame is not waited for, and the burst is free.
		if took := time.Since(start); took < 3700*time.Millisecond || took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestThrottleIdleTimeIsNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := NewThrottle(1000)
		time.Sleep(time.Hour)
		start := time.Now()
		for range 3 {
			if err := throttle.wait(t.Context(), nil, 1000); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < 1900*time.Millisecond {
			t.Errorf("3000 bytes at 1000 a second took %v", took)
		}
	})
}

func TestThrottleWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := NewThrottle(1)
		stop := make(chan struct{})
		if err := throttle.wait(t.Context(), stop, 1000); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := throttle.wait(ctx, stop, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its ctx: %v", err)
		}
		close(stop)
		if err := throttle.wait(t.Context(), stop, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("after the session's end: %v", err)
		}
	})
}

func TestNoThrottle(t *testing.T) {
	if err := NewThrottle(0).wait(t.Context(), nil, 1<<40); err != nil {
		t.Error(err)
	}
}
