package main

import (
	"strings"
	"testing"
)

func TestDetachKeysAreFound(t *testing.T) {
	tests := []struct {
		keys, typed string // typed in pieces, parted by |
		text        string
		detach      bool
	}{
		{"ctrl-p,ctrl-q", "ls\r|\x10\x11rest", "ls\r", true},
		{"ctrl-p,ctrl-q", "a\x10|\x11", "a", true},
		{"ctrl-p,ctrl-q", "a\x10|b", "a\x10b", false},
		{"ctrl-p,ctrl-q", "\x10|\x10|\x11", "\x10", true},
		{"ctrl-p,ctrl-q", "\x10", "", false},
		{"a,a,b", "aaab", "a", true},
		{"a,b,a,c", "ababac", "ab", true},
		{"ctrl-]", "x\x1d", "x", true},
		{"CTRL-@", "\x00", "", true},
		{"q", "Q|q", "Q", true},
		{"", "\x10\x11", "\x10\x11", false},
	}
	for _, test := range tests {
		k, err := parseDetachKeys(test.keys)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		detach := false
		for piece := range strings.SplitSeq(test.typed, "|") {
			part, found := k.filter([]byte(piece))
			text.Write(part)
			detach = detach || found
		}
		if text.String() != test.text || detach != test.detach {
			t.Errorf("%q in %q: sent on %q, detached %v", test.keys, test.typed, text.String(), detach)
		}
	}
	for _, keys := range []string{"ctrl-", "ctrl-1", "abc", "ctrl-p,", "ctrl-pp"} {
		if _, err := parseDetachKeys(keys); err == nil {
			t.Errorf("%q is taken", keys)
		}
	}
}
