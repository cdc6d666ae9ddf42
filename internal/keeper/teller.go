package keeper

import (
	"encoding/json"
	"io"

	"github.com/livemigrate/migrate/internal/line"
	"github.com/livemigrate/migrate/internal/report"
)

// tellerQueue is more than the events of a move that matter; pictures of its progress get half of it at most.
const tellerQueue = 256

// teller passes events on to push. It never waits for push, which may be suspended (Ctrl-Z) while the container is frozen:
// what does not fit into its queue is dropped, but for the result.
type teller struct {
	queue chan report.Event
	done  chan struct{}
}

func newTeller(w io.Writer) *teller {
	t := &teller{queue: make(chan report.Event, tellerQueue), done: make(chan struct{})}
	go func() {
		defer close(t.done)
		events := json.NewEncoder(w)
		for e := range t.queue {
			_ = events.Encode(e) // push may be gone; the move goes on
		}
	}()
	return t
}

func (t *teller) tell(e report.Event) {
	switch {
	case e.Result != nil: // the last one, when nothing is frozen any more
		t.queue <- e
	case e.Event == "progress" && len(t.queue) > tellerQueue/2:
	default:
		select {
		case t.queue <- e:
		default:
		}
	}
}

// refuse tells of a move that could not even be tried, and returns err.
func (t *teller) refuse(container string, err error) error {
	t.tell(report.Event{Event: "result", Result: &report.Result{Outcome: report.Kept, Container: container, Error: line.Of(err)}})
	return err
}

// close returns when push has read everything, or is gone.
func (t *teller) close() {
	close(t.queue)
	<-t.done
}
