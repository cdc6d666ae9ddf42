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

// A round is told as it ends, and what went otherwise than asked for is in the result too.
func TestRoundsAndWarningsAreTold(t *testing.T) {
	var events []Event
	r := NewRecorder(func(e Event) { events = append(events, e) })
	r.Enter(Precopy)
	round := Round{Number: 1, Pages: 2, Bytes: 8192, MS: 1.5, PredictedMS: 100}
	r.Round(round)
	r.Warn("no rounds")
	result := r.Finish(Result{Rounds: []Round{round}, Prediction: &Prediction{DowntimeMS: 100, Reason: "met"}})
	if e := events[1]; e.Event != "round" || e.Phase != Precopy || *e.Round != round {
		t.Errorf("got %+v", e)
	}
	if len(result.Warnings) != 1 || result.Warnings[0] != "no rounds" || result.Rounds[0] != round {
		t.Errorf("got %+v", result)
	}
	line, err := json.Marshal(events[1])
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Round map[string]any `json:"round"`
	}
	if err := json.Unmarshal(line, &got); err != nil || got.Round["predicted_downtime_ms"] != 100.0 || got.Round["bytes"] != 8192.0 {
		t.Errorf("%s: %v", line, err)
	}
}

// A total that was estimated too low is no reason for an event a frame.
func TestProgressIsNotAFlood(t *testing.T) {
	told := 0
	r := NewRecorder(func(Event) { told++ })
	clock := time.Unix(1000, 0)
	r.now = func() time.Time { return clock }
	for sent := range uint64(1000) {
		r.Progress(sent, max(500, sent))
	}
	if told != 2 { // the first, and the one that was complete
		t.Errorf("%d events", told)
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

func TestFindingIsHarmlessToATerminal(t *testing.T) {
	f := Finding{Text: "maps\t\x1b[2J\u009b\u202e\nit", Pid: 7, Process: "web\r\x07", Cure: "stöp it"}
	if got, want := f.String(), "process 7 (web??) maps ?[2J??; it: stöp it"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
