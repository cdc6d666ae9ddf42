package main

import (
	"strings"
	"testing"
)

// The bench is a promise: what is slower than the better runc must end it with an error, and nothing else.
func TestVerdictHoldsUsToTheBetterRunc(t *testing.T) {
	tests := []struct {
		name         string
		row          string
		ours         float64
		older, newer float64
		want         string
	}{
		{"faster than both", "run", 20, 30, 25, ""},
		{"as fast as the better", "exec", 25, 30, 25, ""},
		{"slower than the better", "exec", 26, 30, 25, "exec takes 1.040 of the better runc's median, and may take 1.0"},
		{"slower than the older, which is better", "state", 26, 25, 30, "state takes 1.040"},
		{"a sum of verbs", cycleRow, 41, 40, 40, cycleRow + " takes 1.025"},
		{"more memory", memoryRow, 9000, 8000, 8500, memoryRow + " takes 1.125"},
		{"a part of a sum has no limit", "start", 26, 25, 25, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &report{Tools: []string{ours, again, "older", "newer"}}
			for name, wall := range map[string]float64{ours: tt.ours, again: 1, "older": tt.older, "newer": tt.newer} {
				c := cost{name: tt.row, wall: wall}
				if tt.row == memoryRow {
					c.wall, c.kb = 0, wall
				}
				r.add(&tool{name: name}, []cost{c})
			}
			r.sumUp()
			err := r.verdict()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
				t.Errorf("verdict is %v, want %q", err, tt.want)
			}
		})
	}
}
