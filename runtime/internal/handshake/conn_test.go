package handshake

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func pair(t *testing.T) (starter, child *Conn) {
	t.Helper()
	starter, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	child = NewConn(file)
	t.Cleanup(func() { _, _ = starter.Close(), child.Close() })
	return starter, child
}

func TestDescriptorArrivesWithItsMessage(t *testing.T) {
	starter, child := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		m, err := starter.Receive()
		if err != nil || m.Type != Mount || m.Index != 3 {
			t.Errorf("the starter got %+v, %v", m, err)
		}
		if err := starter.Send(&Message{Type: Mount, File: w}); err != nil {
			t.Error(err)
		}
		_ = w.Close()
	}()
	answer, err := child.Ask(&Message{Type: Mount, Index: 3}, Mount)
	if err != nil || answer.File == nil {
		t.Fatalf("answer %+v, %v", answer, err)
	}
	if _, err := answer.File.WriteString("through"); err != nil {
		t.Fatal(err)
	}
	_ = answer.File.Close()
	if text, _ := io.ReadAll(r); string(text) != "through" {
		t.Errorf("the pipe brought %q", text)
	}
}

func TestClosedChannelIsAnEnd(t *testing.T) {
	starter, child := pair(t)
	_ = child.Close()
	if _, err := starter.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the starter got %v", err)
	}
	starter, child = pair(t)
	_ = starter.Close()
	if _, err := child.Ask(&Message{Type: Ready}, Continue); err == nil {
		t.Error("init went on without its starter")
	}
}

func TestWrongAnswerIsAnError(t *testing.T) {
	starter, child := pair(t)
	if err := starter.Send(&Message{Type: Seccomp}); err != nil {
		t.Fatal(err)
	}
	if _, err := child.Ask(&Message{Type: Ready}, Continue); err == nil || !strings.Contains(err.Error(), "unexpected answer") {
		t.Errorf("Ask: %v", err)
	}
}

func TestLongErrorIsCutNotLost(t *testing.T) {
	starter, child := pair(t)
	if err := child.Send(&Message{Type: Failed, Text: strings.Repeat("x", 1<<20)}); err != nil {
		t.Fatal(err)
	}
	if m, err := starter.Receive(); err != nil || len(m.Text) != messageMax/2 {
		t.Errorf("the starter got %d bytes, %v", len(m.Text), err)
	}
}
