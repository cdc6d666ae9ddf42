package criu

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCauseOfAMissingLogIsNone(t *testing.T) {
	if cause := Cause(filepath.Join(t.TempDir(), "none")); cause != "" {
		t.Error(cause)
	}
}

func TestErrorIsOneLineWithTheCureAndTheLog(t *testing.T) {
	tests := []struct {
		err  *Error
		want string
	}{
		{&Error{Op: "dump", Cause: "why", Hint: "do that", LogPath: "/l"}, "criu dump: why: do that (log: /l)"},
		{&Error{Op: "dump", Errno: 3}, "criu dump: no such process"},
		{&Error{Op: "restore"}, "criu restore: failed without a reason"},
	}
	for _, test := range tests {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestLocatePrefersWhatIsNamed(t *testing.T) {
	dir := t.TempDir()
	program := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flag, env, onPath := program("flag"), program("env"), program("criu")
	t.Setenv("PATH", dir)
	for _, test := range []struct{ flag, env, want string }{
		{flag, env, flag}, {"", env, env}, {"", "", onPath},
	} {
		t.Setenv(Environment, test.env)
		if got, err := Locate(test.flag); err != nil || got != test.want {
			t.Errorf("flag %q, environment %q: %q, %v", test.flag, test.env, got, err)
		}
	}
	if _, err := Locate(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing program that is named must not be replaced by another")
	}
}
