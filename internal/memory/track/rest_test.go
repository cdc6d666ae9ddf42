package track_test

import (
	"testing"

	"github.com/livemigrate/migrate/internal/memory/track"
)

// TestMemoryAtRestIsReadOnce: a large memory goes once, not twice, whatever it is made of and whatever the process has been
// through, or goes through between the rounds.
func TestMemoryAtRestIsReadOnce(t *testing.T) {
	needKind(t, track.WriteProtect)
	const whole = large / page
	for _, test := range []struct {
		tasks string
		busy  uint64 // pages that it goes on writing
	}{
		{tasks: "large"},
		{tasks: "largehuge"},
		{tasks: "large,forked"},
		{tasks: "large,moved"},
		{tasks: "largehuge,moved"},
		{tasks: "large,threads"},
		{tasks: "execed"},
		{tasks: "large,maps,drops", busy: 2048},
		{tasks: "large,programs", busy: 4096},
		{tasks: "large,ends", busy: 4096},
	} {
		t.Run(test.tasks, func(t *testing.T) {
			c := newCgroup(t)
			cmd := c.hog(t, test.tasks)
			set := open(t, c, track.WriteProtect)
			if first := pages(t, set.Round, t.Context()); first < whole {
				t.Errorf("%d pages are dirty at first, of %d", first, whole)
			}
			// What a Go program at rest writes, and its race detector.
			most := whole/16 + test.busy
			for i := range 4 {
				changes, err := set.Round(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, change := range changes {
					// Children that come and go have all of their parent's memory, and are new each time.
					ours := change.Pid == cmd.Process.Pid || test.tasks == "large,forked"
					if again := count(change.Dirty); ours && again > most {
						t.Errorf("%d pages of process %d are dirty in round %d", again, change.Pid, i+2)
					}
				}
			}
			running(t, cmd)
		})
	}
}
