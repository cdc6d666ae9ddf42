package main

import (
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate"
)

func TestBoardShowsALineForEachMove(t *testing.T) {
	var out strings.Builder
	b := newBoard(&out, 60)
	now := time.Now()
	b.Event(migrate.Event{Event: "phase", ID: "web", Phase: "rootfs", At: now})
	b.Event(migrate.Event{Event: "phase", ID: "db", Phase: "preflight", At: now.Add(time.Second)})
	b.drawn = time.Time{}
	b.Event(migrate.Event{Event: "progress", ID: "db", Bytes: 5e6, Total: 1e7})
	b.Event(migrate.Event{Event: "result", ID: "web", Result: &migrate.Result{Outcome: migrate.Kept, Error: "no"}})
	if len(b.moves) != 1 || b.shown != 1 {
		t.Errorf("%d moves, %d lines", len(b.moves), b.shown)
	}
	last := out.String()[strings.LastIndex(out.String(), "\x1b[J")+3:]
	if !strings.HasPrefix(last, "web: kept: no\ndb") || !strings.Contains(last, " 50%  5.0 of 10.0 MB\n") {
		t.Errorf("at last %q of %q", last, out.String())
	}
	for line := range strings.Lines(strings.ReplaceAll(last, "web: kept: no\n", "")) {
		if len(line) > 60 {
			t.Errorf("%q would wrap", line)
		}
	}
}

func TestBoardInALogNamesTheContainer(t *testing.T) {
	var out strings.Builder
	b := newBoard(&out, 0)
	b.Event(migrate.Event{Event: "phase", ID: "web", Phase: "rootfs", At: time.Now()})
	b.Event(migrate.Event{Event: "progress", ID: "web", Bytes: 1, Total: 2})
	b.Event(migrate.Event{Event: "warning", ID: "web", Text: "slow"})
	b.Event(migrate.Event{Event: "result", ID: "web", Result: &migrate.Result{Outcome: migrate.Moved, Destination: "b", DowntimeMS: 12}})
	if got := out.String(); strings.Count(got, "\n") != 3 || strings.Contains(got, "\x1b") || strings.Count(got, "web: ") != 3 {
		t.Errorf("got %q", got)
	}
}

func TestTableOfADrainHasALineForEachAndWhatCuresIt(t *testing.T) {
	var out strings.Builder
	err := printDrained(&out, &migrate.Drained{
		Moved: 1, Refused: 1, Unknown: 1, TotalMS: 1500,
		Results: []*migrate.Result{
			{Container: "web", Outcome: migrate.Moved, Mode: "pre-copy", DowntimeMS: 87.3, TotalMS: 1234, BytesSent: 5e6},
			{Container: "db", Outcome: migrate.Refused, Error: "it has a device: close it"},
			{Container: "job", Outcome: migrate.Unknown, Error: "the link broke", DowntimeMS: 30000, TotalMS: 31000},
		},
		Left: []migrate.Left{{ID: "old", Status: "stopped"}},
	})
	want := `ID   OUTCOME  MODE      DOWNTIME  TOTAL   SENT
web  moved    pre-copy  87 ms     1.2 s   5.0 MB
db   refused  -         -         -       -
job  unknown  -         30000 ms  31.0 s  0.0 MB
db: it has a device: close it
job: the link broke: frozen here until "migrate resolve job"
old: left here, it is stopped
1 of 3 moved, 1 refused, 1 unknown, in 1.5 s
`
	if err != nil || out.String() != want {
		t.Errorf("%v:\n%s", err, out.String())
	}
}
