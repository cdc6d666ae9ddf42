package transport

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestProxyPassesEndOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, front := memoryPair()
		b, back := memoryPair()
		result := make(chan error, 1)
		go func() { result <- Proxy(t.Context(), front, back) }()
		a.Write([]byte("question"))
		closeWrite(a)
		if text, err := io.ReadAll(b); err != nil || string(text) != "question" {
			t.Errorf("the far side reads %q, %v", text, err)
		}
		time.Sleep(time.Second)
		b.Write([]byte("answer"))
		closeWrite(b)
		if text, err := io.ReadAll(a); err != nil || string(text) != "answer" {
			t.Errorf("the near side reads %q, %v", text, err)
		}
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

func TestProxyDoesNotOutliveOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, front := memoryPair()
		b, back := memoryPair()
		start := time.Now()
		result := make(chan error, 1)
		go func() { result <- Proxy(t.Context(), front, back) }()
		b.Close() // and a, behind an ssh, learns nothing of it
		if err := <-result; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != proxyPatience {
			t.Errorf("it lived %v longer", took)
		}
		if _, err := a.Write([]byte("x")); err == nil {
			t.Error("the near side is still open")
		}
	})
}

func TestProxyEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, front := memoryPair()
		_, back := memoryPair()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := Proxy(ctx, front, back); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("proxy: %v", err)
		}
	})
}
