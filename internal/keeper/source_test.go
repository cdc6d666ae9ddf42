package keeper

import (
	"errors"
	"fmt"
	"testing"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/wire"
)

// A cable that was pulled for a moment costs a second attempt, not the move; a no is a no at the first.
func TestRetryOutlivesABrokenLink(t *testing.T) {
	busy := wire.NewFailure(wire.ErrBusy).Err()
	for name, c := range map[string]struct {
		attempt handover.Attempt
		broken  bool
		want    bool
	}{
		"link lost":                         {handover.Attempt{LinkLost: true, Err: handover.ErrLinkLost}, true, true},
		"peer still down":                   {handover.Attempt{Unreached: true}, true, true},
		"peer has not noticed yet":          {handover.Attempt{Err: busy}, true, true},
		"no such peer":                      {handover.Attempt{Unreached: true}, false, false},
		"another move is under way":         {handover.Attempt{Err: busy}, false, false},
		"refused after the link came back":  {handover.Attempt{Err: wire.NewFailure(wire.ErrExists).Err()}, true, false},
		"failed by itself once it was back": {handover.Attempt{Err: errors.New("dump")}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := worthAnother(&c.attempt, c.broken); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestOnlyPassingStatesAreTriedAgain(t *testing.T) {
	for cause, want := range map[string]bool{
		"Zombies with threads are not supported":         true,
		"Control messages in queue, not supported":       true,
		"Connected TCP socket, consider using --tcp-...": false,
		"Unsupported proto 262 for socket 4711":          false,
	} {
		if got := isPassing(fmt.Errorf("dump: %w", &checkpoint.Error{Op: "dump", Cause: cause})); got != want {
			t.Errorf("%s: %t, want %t", cause, got, want)
		}
	}
	if isPassing(errors.New("link lost")) {
		t.Error("an error of another kind is tried again")
	}
}
