package runtime

import (
	"errors"
	"testing"
)

func TestEveryTransition(t *testing.T) {
	all := []Status{Stopped, Created, Running, Paused, Restored}
	allowed := map[Status]map[Status]bool{
		Stopped:  {Stopped: true, Running: true, Restored: true},
		Created:  {Created: true, Running: true, Paused: true, Stopped: true},
		Running:  {Running: true, Paused: true, Stopped: true},
		Paused:   {Paused: true, Running: true, Stopped: true},
		Restored: {Restored: true, Running: true, Stopped: true},
	}
	for _, from := range all {
		for _, to := range all {
			err := from.become(to)
			if allowed[from][to] {
				if err != nil {
					t.Errorf("%d to %d: %v", from, to, err)
				}
				continue
			}
			transition, ok := errors.AsType[*TransitionError](err)
			if !ok || transition.From != from || transition.To != to {
				t.Errorf("%d to %d: error is %v", from, to, err)
			}
		}
	}
}

func TestStatusWords(t *testing.T) {
	for status, want := range map[Status]string{
		Stopped: "stopped", Created: "created", Running: "running", Paused: "paused", Restored: "running",
	} {
		if got := status.String(); got != want {
			t.Errorf("%d is %q, want %q", status, got, want)
		}
	}
}
