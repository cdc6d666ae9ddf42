package unlinked

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

var errCut = errors.New("the link is cut")

// cutLane is a link that breaks: of what is sent, left frames arrive; buffers take others, and nobody gets them; then it is
// known.
type cutLane struct {
	*lane
	left, buffered int
}

func (c *cutLane) Send(ctx context.Context, parts ...[]byte) error {
	switch c.left--; {
	case c.left >= 0:
		return c.lane.Send(ctx, parts...)
	case c.left >= -c.buffered:
		return nil
	}
	return errCut
}

func (c *cutLane) Recv(ctx context.Context, buf []byte) ([]byte, error) {
	if c.left < 0 {
		return nil, errCut
	}
	return c.lane.Recv(ctx, buf)
}

// cut runs one Pass over a link that breaks.
func (p *pair) cut(left, buffered int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	here, there := lanes()
	served := make(chan error, 1)
	go func() {
		_, err := p.target.Serve(ctx, there)
		served <- err
	}()
	_, err := p.source.Pass(ctx, &cutLane{here, left, buffered})
	for len(here.out) > 0 && ctx.Err() == nil { // what has arrived is taken
		time.Sleep(10 * time.Microsecond)
	}
	cancel()
	if <-served; !errors.Is(err, errCut) {
		p.t.Fatalf("a pass over a link that breaks: %v", err)
	}
}

// A pass whose link broke, wherever it did, is made good by the next one, or by the difference alone.
func TestAPassIsMadeGoodAfterTheLinkBroke(t *testing.T) {
	for _, kind := range []string{"pass and difference", "difference", "broken twice"} {
		for i, left := range []int{0, 7, 21} {
			t.Run(kind, func(t *testing.T) { breakOff(t, kind, left, []int{1000, 3, 0}[i]) })
		}
	}
}

// breakOff lets a link break after as many frames of a pass that brings changes of all kinds.
func breakOff(t *testing.T, kind string, left, buffered int) {
	dir := t.TempDir()
	still, changed, punched, ends := deleted(t, dir, "still", 1<<20), deleted(t, dir, "changed", 1<<20), deleted(t, dir, "punched", 2<<20), nameless(t, dir)
	first := holder(t, still, changed, punched)
	p := newPair(t, dir, first, holder(t, ends))
	p.pass(p.source.Pass)
	writeAt(t, changed, 5000, "changed before the break")
	writeAt(t, changed, 1<<20-3, "grown before it")
	must(t, errors.Join(changed.Chmod(0o640), fs.PunchHole(punched, 200<<10, 400<<10), still.Chown(12, 34)))
	fresh := deleted(t, dir, "fresh", 1<<20)
	processes := []int{first, holder(t, fresh)}
	p.source.o.Processes = func() ([]int, error) { return processes, nil }
	p.cut(left, buffered)
	if kind == "broken twice" {
		writeAt(t, changed, 900<<10, "changed between the breaks")
		p.cut(left/2, buffered)
	}
	files := []*os.File{still, changed, punched, fresh}
	if kind != "difference" {
		stats := p.pass(p.source.Pass)
		if most := int64(2<<20 + 5*blockSize); stats.Sent > most {
			t.Errorf("after %d frames of the pass before %d bytes were sent again", left, stats.Sent)
		}
		if len(p.target.files) != len(files) {
			t.Errorf("%d files there", len(p.target.files))
		}
		writeAt(t, still, 1, "changed after the break")
	} else {
		files = files[:3] // the last has come in part, and is left to CRIU
	}
	p.pass(p.source.Delta)
	if carried := p.source.Carried(); len(carried) != len(files) {
		t.Errorf("carried after %d frames: %+v", left, carried)
	}
	for _, f := range files {
		p.same(f)
	}
	if again := p.pass(p.source.Delta); again.Sent > 0 {
		t.Errorf("sent twice: %+v", again)
	}
}
