package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestPreambleIsReadAsWritten(t *testing.T) {
	for _, p := range []Preamble{
		{Kind: KindControl, Token: NewToken(), Lanes: MaxLanes, Attempt: 1 << 31},
		{Kind: KindLane, Token: NewToken(), Index: 3, Lanes: 4, Attempt: 7},
		{Kind: KindResume, Token: NewToken()},
	} {
		b := p.append(nil)
		if len(b) != preambleSize {
			t.Fatalf("a preamble of %d bytes", len(b))
		}
		r := bytes.NewReader(append(b, "next"...))
		got, err := readPreamble(r)
		if err != nil || got != p {
			t.Errorf("%+v is read as %+v, %v", p, got, err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "next" {
			t.Errorf("%q is left of the bytes that follow", rest)
		}
	}
}

func TestPreambleOutOfBoundsIsRefused(t *testing.T) {
	for _, p := range []Preamble{
		{Kind: 0},
		{Kind: 4},
		{Kind: KindControl, Lanes: MaxLanes + 1},
		{Kind: KindControl, Lanes: 2, Index: 1},
		{Kind: KindLane, Lanes: 2, Index: 2},
		{Kind: KindLane},
	} {
		if _, err := readPreamble(bytes.NewReader(p.append(nil))); err == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
}

func TestAnswerKeepsReasonAcrossHosts(t *testing.T) {
	for _, sentinel := range []error{ErrNotMigrate, ErrUnknownToken, ErrTokenInUse, ErrBusy, ErrRefused} {
		err := readAnswer(bytes.NewReader(appendAnswer(nil, fmt.Errorf("lane 3: %w", sentinel))))
		if !errors.Is(err, sentinel) || !strings.Contains(err.Error(), "lane 3: ") {
			t.Errorf("%v has become %v", sentinel, err)
		}
	}
	if err := readAnswer(bytes.NewReader(appendAnswer(nil, nil))); err != nil {
		t.Errorf("acceptance is read as %v", err)
	}
	long := errors.New(strings.Repeat("ü", maxAnswer))
	if err := readAnswer(bytes.NewReader(appendAnswer(nil, long))); !errors.Is(err, ErrRefused) {
		t.Errorf("a long reason is read as %v", err)
	}
}

func FuzzReadPreamble(f *testing.F) {
	p := Preamble{Kind: KindLane, Token: NewToken(), Index: 1, Lanes: 2}
	f.Add(p.append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte("MIGR\x00\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPreamble(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := p.append(nil); !bytes.Equal(again, b[:preambleSize]) {
			t.Errorf("%x is read as %+v, which is %x", b, p, again)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add(appendAnswer(nil, nil))
	f.Add(appendAnswer(nil, ErrBusy))
	f.Add(appendAnswer(nil, &VersionError{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := readAnswer(bytes.NewReader(b)); err == nil && (len(b) < answerSize || b[6] != 0) {
			t.Errorf("%x is taken for an acceptance", b)
		}
	})
}
