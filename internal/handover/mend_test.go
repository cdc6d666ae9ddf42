package handover

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
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

// The link breaks once more before the rounds go on: a round that the peer has, or a part of one, is not sent a second time.
func TestBreakAfterABreakCostsNoRound(t *testing.T) {
	const all = twinPages + 8 + 4 + 2
	for cut := 6; cut < 16; cut++ { // from the first ping on, to the refresh after the last round
		for again := range 6 { // 0 to 2: before the source knows what is there; 3, 4: the ping
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.link, w.mode = newCable(cut), PreCopy
				newTwinMemory(w, 8, 4, 2)
				w.links = []*cable{newCable(again)}
				result := w.push(t.Context(), true)
				if result.Outcome != report.Moved {
					t.Fatalf("cut after %d and %d: %+v", cut, again, result)
				}
				if most := all + 2*16; w.store.frames > most {
					t.Errorf("cut after %d and %d: %d frames were stored, at most %d are needed", cut, again, w.store.frames, most)
				}
			})
		}
	}
}

// A link that was made again and breaks later is tried for as long again: patience counts from the break that was not mended.
func TestPatienceCountsFromTheLastBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link, w.mode = newCable(-1), PreCopy
		newTwinMemory(w, 40, 20, 5)
		w.link.dataCutAfter = 30
		again := newCable(7) // a round, and no more
		w.links = []*cable{again}
		for range 5 {
			w.links = append(w.links, newCable(0))
		}
		ended := make(chan time.Time, 1)
		go func() {
			<-again.dead
			ended <- time.Now()
		}()
		w.push(t.Context(), true)
		last := <-ended
		if w.tried.Result.Outcome != report.Kept || !w.tried.LinkLost || !w.tried.Broke.Equal(last) {
			t.Errorf("broke at %v, want %v: %+v", w.tried.Broke, last, w.tried)
		}
	})
	synctest.Test(t, func(t *testing.T) { // it was mended, and what breaks then is not made again at all
		w := newWorld(t)
		w.link, w.mode, w.failAt = newCable(-1), PreCopy, "dump"
		newTwinMemory(w, 40, 20, 5)
		w.link.dataCutAfter = 30
		if w.push(t.Context(), true); !w.tried.Broke.IsZero() {
			t.Errorf("it is broken since %v", w.tried.Broke)
		}
	})
}

// A peer that does not wait any more says so at once, and touches nothing of the place afterwards.
func TestSourceThatComesTooLateIsNotKeptWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link = newCable(-1)
		source, session := newSessions(w.link)
		bell := newBell(func(error) {})
		r := &Receive{
			Log: slog.New(slog.DiscardHandler), session: session, talk: newTalk(t.Context(), session.Control(), bell.ring), bell: bell, proof: "proof",
			hello: &wire.Hello{Move: twinMove, RetryMs: 1000}, pages: newPageReceiver(nil), place: twinPlace{w, "", nil}, lanes: new(errgroup.Group), leg: t.Context(),
		}
		r.allowAbsence()
		a := r.absence.Load()
		if err := r.await(t.Context(), ErrLinkLost); !errors.Is(err, ErrLinkLost) {
			t.Errorf("got %v", err)
		}
		began := time.Now()
		if a.give(t.Context(), &comeback{}) || time.Since(began) > 0 || r.absent(twinMove, source) != nil {
			t.Errorf("it is waited for: %v", time.Since(began))
		}
	})
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
