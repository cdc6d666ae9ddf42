package report

import (
	"encoding/json"
	"testing"
	"time"
)

func TestDowntimeRunsFromFreezeToFinish(t *testing.T) {
	var events []Event
	r := NewRecorder(func(e Event) { events = append(events, e) })
	clock := time.Unix(1000, 0)
	r.now = func() time.Time { return clock }
	r.began = clock
	for _, p := range Phases() {
		clock = clock.Add(10 * time.Millisecond)
		r.Enter(p)
	}
	clock = clock.Add(10 * time.Millisecond)
	result := r.Finish(Result{Outcome: Moved})
	if result.DowntimeMS != 50 || result.TotalMS != 90 || result.Phases[Dump] != 10 {
		t.Errorf("got %+v", result)
	}
	if len(events) != len(Phases())+1 {
		t.Errorf("%d events", len(events))
	}
}

// Scripts parse these lines.
func TestResultIsOneFlatObject(t *testing.T) {
	line, err := json.Marshal(Event{Event: "result", Result: &Result{Outcome: Kept, Error: "no"}})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"event", "outcome", "mode", "downtime_ms", "total_ms", "bytes_sent", "memory_bytes", "rounds", "phases", "source", "destination", "error"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %q in %s", key, line)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for outcome, code := range map[Outcome]int{Moved: 0, Kept: 1, Unknown: 3, Refused: 4} {
		if got := outcome.ExitCode(); got != code {
			t.Errorf("%s: %d, want %d", outcome, got, code)
		}
	}
}
