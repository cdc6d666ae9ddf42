package handover

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// newDebtWorld is one whose container runs at the peer without its memory, and whose source was lost before it could send any.
func newDebtWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.link, w.mode, w.failAt = newCable(-1), PostCopy, "follow"
	newTwinMemory(w, 0)
	if result := w.push(t.Context(), true); result.Outcome != report.Unknown {
		t.Fatalf("%+v", result)
	}
	synctest.Wait()
	w.failAt = ""
	return w
}

// slowChannel has sent a frame for a while before the sender goes on.
type slowChannel struct {
	Channel
	after int // so many frames
	goOn  chan struct{}
}

func (ch *slowChannel) Send(ctx context.Context, parts ...[]byte) error {
	err := ch.Channel.Send(ctx, parts...)
	if ch.after--; ch.after == 0 {
		<-ch.goOn
	}
	return err
}

// askAgain opens a session on which the source asks for what is missing, and has been told. The peer's answer stands still there
// until goOn is closed.
func (w *world) askAgain(goOn chan struct{}) (source *twinSession, t *talk) {
	w.t.Helper()
	source, peer := newSessions(newCable(-1))
	answering := newTalk(w.t.Context(), &slowChannel{peer.Control(), 2, goOn}, func(error) {})
	w.busy.Go(func() {
		_ = w.receive.debtor.Load().answer(context.Background(), answering, peer, true)
		answering.close()
		_ = peer.Close()
	})
	t = newTalk(w.t.Context(), source.Control(), func(error) {})
	w.busy.Go(func() { <-t.done })
	w.t.Cleanup(t.close)
	if v, err := readVerdict(w.t.Context(), t); v != owing || err != nil {
		w.t.Fatalf("%v, %v", v, err)
	}
	if _, _, err := readHeld(w.t.Context(), t, w.memory.Top()); err != nil {
		w.t.Fatal(err)
	}
	return source, t
}

// wantLast has all the memory come, and wants to be told that on a session.
func (w *world) wantLast(t *talk) {
	w.t.Helper()
	for _, page := range slices.Clone(w.memory.promised) {
		w.store.debt.came(page)
	}
	if done, err := expect(w.t.Context(), t, (*wire.Message).GetDone); err != nil || done.GetOwedPages() != 0 {
		w.t.Errorf("the last word is %v, %v", done, err)
	}
}

// An answer that is slower than the next one does not take its place.
func TestLastWordGoesOverTheNewestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDebtWorld(t)
		held, free := make(chan struct{}), make(chan struct{})
		close(free)
		broken, _ := w.askAgain(held)
		_ = broken.Close()
		synctest.Wait()
		last, told := w.askAgain(free)
		synctest.Wait()
		close(held)
		synctest.Wait()
		w.wantLast(told)
		_ = last.Close()
	})
}

// All has come before the peer has seen to the link that brought it.
func TestLastWordGoesOverALinkThatWasFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDebtWorld(t)
		held := make(chan struct{})
		link, told := w.askAgain(held)
		synctest.Wait()
		go func() {
			synctest.Wait()
			close(held)
		}()
		w.wantLast(told)
		_ = link.Close()
	})
}

// The peer has everything and a disk that fails: nobody is told to delete the container, and the next process records it.
func TestDebtThatIsPaidAndNotRecordedIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDebtWorld(t)
		_ = w.receive.journal.Close()
		outcome, err := w.resolve(true, NoForce)
		if source, _ := w.states(); outcome != report.Unknown || err == nil || isHopeless(err) || source != frozen {
			t.Errorf("source %s, %s, %v", source, outcome, err)
		}
		if err == nil || !strings.Contains(err.Error(), "journal") {
			t.Errorf("it says %v", err)
		}
		synctest.Wait()
		w.desk = w.newDesk()
		if outcome, err := w.resolve(true, NoForce); outcome != report.Moved || err != nil {
			t.Errorf("%s, %v", outcome, err)
		}
		if source, peer := w.states(); source != absent || peer != running || w.story(journal.Peer) != "begin committed owing running" {
			t.Errorf("source %s, peer %s, %s", source, peer, w.story(journal.Peer))
		}
	})
}

// Whoever adopts a container has no place for images.
func TestImageForAnAdoptedContainerIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, peer := newSessions(newCable(-1))
		r := &Receive{pages: newPageReceiver(func([]byte) error { return nil })}
		frame := append(wire.AppendChunkHeader(nil, wire.Chunk{Name: "core-1.img", Data: []byte("core")}), "core"...)
		if err := source.Images()[0].Send(t.Context(), frame); err != nil {
			t.Fatal(err)
		}
		if err := r.drain(t.Context(), peer.Images()[0]); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("got %v", err)
		}
	})
}
