package transport

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
)

// Token names a session on both sides. It is random and secret: whoever has it, and is let in, can join the session.
type Token [32]byte

// NewToken makes a token.
func NewToken() Token {
	var t Token
	_, _ = rand.Read(t[:]) // never fails: it ends the program instead
	return t
}

// String returns the token's first digits, enough to tell sessions apart in a log and too few to join one.
func (t Token) String() string { return hex.EncodeToString(t[:4]) }

// LogValue keeps the whole token out of logs, which would else take MarshalText.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText returns the whole token, for a journal that only its owner can read.
func (t Token) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, t[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (t *Token) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(t)) {
		return fmt.Errorf("parse token: %d characters instead of %d", len(text), hex.EncodedLen(len(t)))
	}
	if _, err := hex.Decode(t[:], text); err != nil {
		return fmt.Errorf("parse token: %w", err)
	}
	return nil
}
