package attribute

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseSetReadsListsAndRanges(t *testing.T) {
	tests := []struct {
		list  string
		want  []int
		fails bool
	}{
		{"0", []int{0}, false},
		{"0-2,5", []int{0, 1, 2, 5}, false},
		{" 1 , ,3", []int{1, 3}, false},
		{"", nil, true},
		{"3-1", nil, true},
		{"x", nil, true},
		{"1-", nil, true},
		{"99999", nil, true},
	}
	for _, tt := range tests {
		set, err := ParseSet(tt.list)
		if (err != nil) != tt.fails {
			t.Errorf("ParseSet(%q): %v", tt.list, err)
			continue
		}
		for _, cpu := range tt.want {
			if !set.IsSet(cpu) {
				t.Errorf("ParseSet(%q) lacks %d", tt.list, cpu)
			}
		}
		if !tt.fails && set.Count() != len(tt.want) {
			t.Errorf("ParseSet(%q) has %d members, want %d", tt.list, set.Count(), len(tt.want))
		}
	}
}

func TestUnknownWordsAreErrorsNotDefaults(t *testing.T) {
	errs := map[string]error{
		"scheduler":     SetScheduler(&specs.Scheduler{Policy: "SCHED_WHENEVER"}),
		"flag":          SetScheduler(&specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"X"}}),
		"io priority":   SetIOPriority(&specs.LinuxIOPriority{Class: "X"}),
		"personality":   SetPersonality(&specs.LinuxPersonality{Domain: "X"}),
		"memory policy": SetMemoryPolicy(&specs.LinuxMemoryPolicy{Mode: "X"}),
		"rlimit":        SetRlimits(0, []specs.POSIXRlimit{{Type: "RLIMIT_X"}}),
		"affinity":      SetAffinity(0, "3-1"),
	}
	for name, err := range errs {
		if err == nil {
			t.Errorf("%s: an unknown word is no error", name)
		}
	}
	if err := SetScheduler(nil); err != nil {
		t.Errorf("nothing asked for is an error: %v", err)
	}
}
