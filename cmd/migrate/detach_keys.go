package main

import (
	"bytes"
	"fmt"
	"strings"
)

// detachKeys looks for a sequence of keys in what is typed.
type detachKeys struct {
	sequence []byte // empty: there is none
	typed    int    // of the sequence
}

// parseDetachKeys reads docker's form: "ctrl-p,ctrl-q" or "a,b".
func parseDetachKeys(text string) (*detachKeys, error) {
	k := &detachKeys{}
	if text == "" {
		return k, nil
	}
	for name := range strings.SplitSeq(text, ",") {
		control, isControl := strings.CutPrefix(strings.ToLower(name), "ctrl-")
		const firstControl, lastControl = '@', '_'
		switch {
		case isControl && len(control) == 1 && control[0] >= 'a' && control[0] <= 'z':
			k.sequence = append(k.sequence, control[0]-'a'+1)
		case isControl && len(control) == 1 && control[0] >= firstControl && control[0] <= lastControl:
			k.sequence = append(k.sequence, control[0]-firstControl)
		case len(name) == 1:
			k.sequence = append(k.sequence, name[0])
		default:
			return nil, fmt.Errorf("unknown key %q in --detach-keys: a character, or ctrl- and a letter or one of @[\\]^_", name)
		}
	}
	return k, nil
}

// filter returns what is to be sent on of what was typed. A beginning of the sequence waits for the next key.
func (k *detachKeys) filter(typed []byte) (text []byte, detach bool) {
	if len(k.sequence) == 0 {
		return typed, false
	}
	for _, key := range typed {
		// After a key that does not fit, the end of what was held may be a beginning again.
		held := append(bytes.Clone(k.sequence[:k.typed]), key)
		for !bytes.HasPrefix(k.sequence, held) {
			text, held = append(text, held[0]), held[1:]
		}
		if k.typed = len(held); k.typed == len(k.sequence) {
			return text, true
		}
	}
	return text, false
}
