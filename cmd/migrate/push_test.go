package main

import (
	"strings"
	"testing"
)

// What is wrong with the command line is said before anything starts, with the exit code of usage.
func TestPushFindsUsageErrorsFirst(t *testing.T) {
	h := newHost(t)
	for flag, says := range map[string]string{
		"--lanes=0":            "--lanes 0",
		"--volumes=some":       "--volumes some",
		"--retry=-1s":          "--retry -1s",
		"--report=story.html":  "--report story.html",
		"--mode=fast":          `--mode "fast"`,
		"--compress=gzip":      "--compress gzip",
		"--max-downtime=0":     "--max-downtime 0s",
		"--max-rounds=0":       "--max-rounds 0",
		"--bandwidth-limit=xx": "bandwidth limit",
	} {
		got := h.run("push", flag, "web", "tls://host-b")
		if got.code != 2 || !strings.Contains(message(t, got.stderr), says) {
			t.Errorf("push %s: exit code %d: %s", flag, got.code, got.stderr)
		}
	}
}
