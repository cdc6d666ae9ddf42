package keeper

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/transport"
)

// cut is a lane that fails.
type cut struct{ err error }

func (c cut) Send(context.Context, ...[]byte) error        { return c.err }
func (c cut) Recv(context.Context, []byte) ([]byte, error) { return nil, c.err }

// A link may be found broken by the lane of files first: the move is tried again by what the handover calls it.
func TestLostLaneOfFilesIsALostLink(t *testing.T) {
	for _, test := range []struct {
		err  error
		lost bool
	}{
		{fmt.Errorf("read: %w", transport.ErrLinkLost), true},
		{context.Canceled, false},
		{nil, false},
	} {
		lane := files{cut{test.err}}
		_, received := lane.Recv(t.Context(), nil)
		for _, err := range []error{lane.Send(t.Context()), received} {
			if errors.Is(err, handover.ErrLinkLost) != test.lost || !errors.Is(err, test.err) {
				t.Errorf("%v comes as %v", test.err, err)
			}
		}
	}
}

// laned is a session of which only the lanes count.
type laned struct {
	transport.Session
	lanes []transport.Lane
}

func (l laned) Lanes() []transport.Lane { return l.lanes }

func TestSessionHasTheLanesThatItsSourceOpened(t *testing.T) {
	for n, images := range []int{0, 0, 1, 2} {
		s := session{laned{lanes: make([]transport.Lane, n)}}
		if got := s.Files(); (got != nil) != (n > 0) {
			t.Errorf("of %d lanes, that for files is %v", n, got)
		}
		if got := len(s.Images()); got != images {
			t.Errorf("of %d lanes %d are for images", n, got)
		}
	}
}
