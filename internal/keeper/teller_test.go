package keeper

import (
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/report"
)

// A push that was suspended with Ctrl-Z reads nothing: the container must not stay frozen until somebody types fg.
func TestSuspendedPushDoesNotHoldTheMove(t *testing.T) {
	theirs, ours := net.Pipe() // without a buffer: the first write waits already
	defer theirs.Close()
	events := newTeller(ours)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for range 10 * tellerQueue {
			events.tell(report.Event{Event: "progress"})
		}
		events.tell(report.Event{Event: "phase", Phase: report.Resume})
		events.tell(report.Event{Event: "result", Result: &report.Result{Outcome: report.Moved}})
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("the move waits for push")
	}
	go events.close()
	var last, before report.Event
	for decoder := json.NewDecoder(theirs); last.Result == nil; {
		before, last = last, report.Event{}
		if err := decoder.Decode(&last); err != nil {
			t.Fatal(err)
		}
	}
	if before.Phase != report.Resume || last.Outcome != report.Moved {
		t.Errorf("push heard %+v, %+v at last", before, last)
	}
}

func TestTellerSurvivesPush(t *testing.T) {
	theirs, ours := net.Pipe()
	theirs.Close()
	events := newTeller(ours)
	for range 2 * tellerQueue {
		events.tell(report.Event{Event: "warning"})
	}
	failure := errors.Join(errors.New("no"), errors.New("order"))
	if err := events.refuse("web", failure); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	events.close()
}
