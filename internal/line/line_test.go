package line_test

import (
	"errors"
	"testing"

	"github.com/livemigrate/migrate/internal/line"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"plain":               "plain",
		"two\nlines\there":    "two; lines here",
		"\x1b[2J\aand \u202e": "?[2J?and ?",
		"größe 測":             "größe 測",
		"not \xff UTF-8":      "not \ufffd UTF-8",
	} {
		if got := line.Printable(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestJoinedErrorsAreOneLine(t *testing.T) {
	if got := line.Of(errors.Join(errors.New("one"), errors.New("two"))); got != "one; two" {
		t.Errorf("got %q", got)
	}
}
