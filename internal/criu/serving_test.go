package criu

import (
	"os/exec"
	"testing"
)

// What stands among a process's arguments is what a stranger's would be judged by, too: sh, which takes any.
func TestServingGoesByArgumentsAndTitle(t *testing.T) {
	for name, c := range map[string]struct {
		title string
		args  []string
		want  bool
	}{
		"waits":    {"criu", []string{"swrk", "3"}, true},
		"dumps":    {"criu: dump --rpc -t 17", nil, true},
		"restores": {"criu: restore --rpc", nil, true},
		"another":  {"criu", []string{"page-server", "3"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/bin/sh")
			cmd.Args = append([]string{c.title, "-c", "read line; :", "-"}, c.args...)
			if _, err := cmd.StdinPipe(); err != nil { // it waits for it
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			if got := Serving(cmd.Process.Pid); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
