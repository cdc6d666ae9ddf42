package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestBarShowsHowMuchIsDoneAndLeavesNothingBehind(t *testing.T) {
	var out bytes.Buffer
	b := &bar{out: &out, title: "memory"}
	now := time.Unix(1000, 0)
	b.draw(now, 25e6, 100e6)
	b.draw(now.Add(time.Millisecond), 26e6, 100e6) // too soon to be seen
	b.draw(now.Add(2*time.Millisecond), 100e6, 100e6)
	b.clear()
	pictures := strings.Split(out.String(), "\r")[1:]
	if len(pictures) != 3 || !strings.Contains(pictures[0], "25% |███████   ") || !strings.Contains(pictures[0], "25.0 of 100.0 MB") ||
		!strings.Contains(pictures[1], "100% |"+strings.Repeat("█", barWidth)+"|") || pictures[2] != "\x1b[K" {
		t.Errorf("drawn: %q", pictures)
	}
}
