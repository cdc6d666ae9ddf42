package transport

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPeerSilentForTenSecondsIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memoryPair()
		s := newSession(Preamble{}, "b", a, nil, settings{})
		defer s.Close()
		start := time.Now()
		_, err := s.Control().Recv(t.Context(), nil)
		if took := time.Since(start); !errors.Is(err, ErrPeerSilent) || took != defaultSilence {
			t.Errorf("after %v: %v", took, err)
		}
		b.Close()
	})
}

func TestIdleSessionLivesForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memoryPair()
		left, right := newSession(Preamble{}, "b", a, nil, settings{}), newSession(Preamble{}, "a", b, nil, settings{})
		time.Sleep(48 * time.Hour)
		if left.Err() != nil || right.Err() != nil {
			t.Errorf("left: %v, right: %v", left.Err(), right.Err())
		}
		var wait sync.WaitGroup
		wait.Go(func() { left.Close() })
		wait.Go(func() { right.Close() })
		wait.Wait()
	})
}

func TestPipeIsASession(t *testing.T) {
	a, b, err := Pipe(&ConnectOptions{Lanes: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Lanes()[1].Send(t.Context(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if frame, err := b.Lanes()[1].Recv(t.Context(), nil); err != nil || string(frame) != "x" {
		t.Errorf("frame %q, %v", frame, err)
	}
	go a.Close()
	b.Close()
}

func TestTokenStaysOutOfLogs(t *testing.T) {
	token := NewToken()
	secret, err := token.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("session", "token", token)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("session", "token", token)
	fmt.Fprintf(&log, "%v %s %+v", token, token, Preamble{Token: token})
	if strings.Contains(log.String(), string(secret[8:])) {
		t.Errorf("%q shows the token %s", log.String(), secret)
	}
	if !strings.Contains(log.String(), token.String()) {
		t.Errorf("%q does not tell the session %s from others", log.String(), token)
	}
	b, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	var again Token
	if err := json.Unmarshal(b, &again); err != nil || again != token {
		t.Errorf("a journal gives back %v, %v", again == token, err)
	}
	if err := again.UnmarshalText([]byte("abc")); err == nil {
		t.Error("a short token is accepted")
	}
}
