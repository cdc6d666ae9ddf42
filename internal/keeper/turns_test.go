package keeper

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

func TestStopsTakeTurns(t *testing.T) {
	ctx := t.Context()
	ours := turns{t.TempDir(), slog.New(slog.DiscardHandler)}
	next, waited := ours.Take(ctx)
	if waited > time.Second {
		t.Errorf("the first waits %v", waited)
	}
	taken, yielded := make(chan func()), make(chan struct{})
	go func() {
		next, _ := ours.Take(ctx)
		taken <- next
	}()
	go func() {
		ours.Yield(ctx)
		close(yielded)
	}()
	select {
	case <-taken:
		t.Fatal("two stand still at once")
	case <-yielded:
		t.Fatal("work goes on beside a stop")
	case <-time.After(50 * time.Millisecond):
	}
	next()
	(<-taken)()
	<-yielded
}

// A stop that does not end, or a directory that is not there, holds nobody up for good.
func TestNobodyWaitsForATurnForEver(t *testing.T) {
	ours := turns{t.TempDir(), slog.New(slog.DiscardHandler)}
	next, _ := ours.Take(t.Context())
	defer next()
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	anyway, _ := ours.Take(short)
	anyway()
	began := time.Now()
	ours.Yield(t.Context())
	if took := time.Since(began); took < yieldLimit/2 || took > 5*yieldLimit {
		t.Errorf("it yields for %v", took)
	}
	lost := turns{"/nowhere", ours.log}
	lost.Yield(t.Context())
	next, _ = lost.Take(t.Context())
	next()
}
