package handover

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/livemigrate/migrate/internal/report"
)

// A link that breaks between rounds of memory is made again, and what the peer has is not sent again. What is then at the peer is
// checked by its twin, page by page.
func TestRoundsGoOnOverAnotherSession(t *testing.T) {
	const all = twinPages + 40 + 20 + 5       // pages that go without a fault
	for after := 2; after < all; after += 9 { // the first frame is of the files
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.link, w.mode = newCable(-1), PreCopy
			m := newTwinMemory(w, 40, 20, 5)
			w.link.dataCutAfter = after
			again := newCable(-1)
			again.dataCutAfter = after/2 + 1 // and once more
			w.links = []*cable{again}
			result := w.push(t.Context(), true)
			if result.Outcome == report.Kept { // it broke inside the stop
				if source, peer := w.states(); m.passes == 0 || source != running || peer == running || !w.reached("dump") {
					t.Errorf("cut after %d: source %s, peer %s, %+v", after, source, peer, result)
				}
				return
			}
			if result.Outcome != report.Moved || len(result.Warnings) == 0 {
				t.Fatalf("cut after %d: %+v", after, result)
			}
			// A break costs the frames that were on their way: those that the lanes hold.
			if most := all + 2*16; w.store.frames > most {
				t.Errorf("cut after %d: %d frames were stored, at most %d are needed", after, w.store.frames, most)
			}
		})
	}
}

// The source does not come back: the peer keeps nothing for longer than was said, and the next attempt finds it empty.
func TestPeerKeepsNothingForASourceThatStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link, w.mode = newCable(-1), PreCopy
		newTwinMemory(w, 40, 20, 5)
		w.link.dataCutAfter = 30
		result := w.push(t.Context(), false)
		if source, _ := w.states(); result.Outcome != report.Kept || source != running {
			t.Fatalf("source %s, %+v", source, result)
		}
		time.Sleep(3*askInterval + absenceMargin)
		synctest.Wait()
		if _, peer := w.states(); peer != absent || !w.reached("discard") {
			t.Errorf("the peer's is %s", peer)
		}
	})
}

// A source that gives up says so, and is not waited for.
func TestPeerDoesNotWaitForASourceThatGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link, w.mode, w.failAt = newCable(-1), PreCopy, "dump"
		newTwinMemory(w, 0)
		began := time.Now()
		w.link.cutAfter = 12 // before the word of the abort
		result := w.push(t.Context(), true)
		w.busy.Wait()
		source, peer := w.states()
		if result.Outcome != report.Kept || source != running || peer != absent || !w.reached("discard") || time.Since(began) > 3*askInterval {
			t.Errorf("after %v: source %s, peer %s, %+v", time.Since(began), source, peer, result)
		}
	})
}
