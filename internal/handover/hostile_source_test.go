package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livemigrate/migrate/internal/wire"
)

// hostileSource says what it likes to a peer.
type hostileSource struct {
	t *testing.T
	w *world
	*twinSession
}

func (s *hostileSource) say(messages ...*wire.Message) {
	for _, m := range messages {
		frame, err := wire.Encode(m)
		if err != nil {
			s.t.Error(err)
			return
		}
		s.frame(frame)
	}
}

// frame is lost when the peer has hung up.
func (s *hostileSource) frame(frame []byte) { _ = s.Control().Send(s.t.Context(), frame) }

func (s *hostileSource) chunk(name string, offset uint64, data string) {
	c := wire.Chunk{Name: name, Offset: offset, Data: []byte(data)}
	_ = s.Images()[0].Send(s.t.Context(), wire.AppendChunkHeader(nil, c), c.Data)
}

func hello(change func(*wire.Hello)) *wire.Message {
	h := &wire.Hello{Protocol: wire.Protocol, Move: twinMove, Container: "web", Mode: string(StopCopy), Trees: []*wire.Tree{{Name: "rootfs"}}}
	if change != nil {
		change(h)
	}
	return &wire.Message{Body: &wire.Message_Hello{Hello: h}}
}

func prepare() *wire.Message {
	return &wire.Message{Body: &wire.Message_Prepare{Prepare: &wire.Prepare{}}}
}

func commit() *wire.Message { return &wire.Message{Body: &wire.Message_Commit{Commit: &wire.Commit{}}} }

func images(i *wire.Images) *wire.Message {
	return &wire.Message{Body: &wire.Message_Images{Images: i}}
}

// hostileSources are sources that no program of ours is, each with what ends it.
func hostileSources() map[string]struct {
	acts func(s *hostileSource)
	says error
} {
	askForPages := &wire.Message{Body: &wire.Message_PageRequest{PageRequest: &wire.PageRequest{Slots: []uint64{1}}}}
	offer := &wire.Message{Body: &wire.Message_Offer{Offer: &wire.Offer{}}}
	list := func(files ...*wire.ImageFile) *wire.Message { return images(&wire.Images{Files: files}) }
	return map[string]struct {
		acts func(s *hostileSource)
		says error
	}{
		"silence":           {func(*hostileSource) {}, errSilentCaller},
		"no message":        {func(s *hostileSource) { s.frame([]byte("GET / HTTP/1.1")) }, wire.ErrMalformed},
		"an empty frame":    {func(s *hostileSource) { s.frame(nil) }, wire.ErrMalformed},
		"another protocol":  {func(s *hostileSource) { s.say(hello(func(h *wire.Hello) { h.Protocol = 77 })) }, wire.ErrVersion},
		"an id that climbs": {func(s *hostileSource) { s.say(hello(func(h *wire.Hello) { h.Container = "../../etc" })) }, wire.ErrMalformed},
		"a move that climbs": {func(s *hostileSource) {
			s.say(hello(func(h *wire.Hello) { h.Move = "../../../etc/passwd/0123456789ab" }))
		}, wire.ErrMalformed},
		"a tree that climbs": {func(s *hostileSource) { s.say(hello(func(h *wire.Hello) { h.Trees[0].Name = "../x" })) }, wire.ErrMalformed},
		"an unknown mode":    {func(s *hostileSource) { s.say(hello(func(h *wire.Hello) { h.Mode = "%s%n" })) }, wire.ErrIncompatible},
		"commit first":       {func(s *hostileSource) { s.say(commit()) }, wire.ErrMalformed},
		"the peer's words":   {func(s *hostileSource) { s.say(hello(nil), offer) }, wire.ErrMalformed},
		"hello twice":        {func(s *hostileSource) { s.say(hello(nil), hello(nil)) }, wire.ErrMalformed},
		"prepare twice":      {func(s *hostileSource) { s.say(hello(nil), prepare(), prepare()) }, wire.ErrMalformed},
		"commit too early":   {func(s *hostileSource) { s.say(hello(nil), prepare(), commit()) }, wire.ErrMalformed},
		"images too early":   {func(s *hostileSource) { s.say(hello(nil), list()) }, wire.ErrMalformed},
		"pages not asked for": {func(s *hostileSource) {
			s.say(hello(nil), prepare(), &wire.Message{Body: &wire.Message_PagesSent{PagesSent: &wire.PagesSent{Frames: 1 << 60}}})
		}, wire.ErrMalformed},
		"a tree that is none": {func(s *hostileSource) {
			s.say(hello(nil), &wire.Message{Body: &wire.Message_SyncTree{SyncTree: &wire.SyncTree{Index: 1 << 31}}})
		}, wire.ErrMalformed},
		"a flood of requests for pages": {func(s *hostileSource) {
			s.say(hello(nil))
			for range 200 {
				s.say(askForPages)
			}
		}, wire.ErrMalformed},
		"ten thousand tiny frames": {func(s *hostileSource) {
			s.say(hello(nil))
			frame, _ := wire.Encode(&wire.Message{Body: &wire.Message_Frozen{Frozen: &wire.Frozen{}}})
			for range 10_000 {
				s.frame(frame)
			}
			s.say(commit())
		}, wire.ErrMalformed},
		"an endless list of images": {func(s *hostileSource) {
			s.say(hello(nil), prepare())
			for i := range 20 {
				var files []*wire.ImageFile
				for j := range wire.MaxListed {
					files = append(files, &wire.ImageFile{Name: "core-" + string(rune('a'+i)) + "-" + time.Duration(j).String() + ".img"})
				}
				s.say(images(&wire.Images{Files: files, More: true}))
			}
		}, wire.ErrMalformed},
		"an image listed twice": {func(s *hostileSource) {
			a := &wire.ImageFile{Name: "a.img", Size: 1}
			s.chunk("a.img", 0, "x")
			s.say(hello(nil), prepare(), images(&wire.Images{Files: []*wire.ImageFile{a}, More: true}), list(a))
		}, wire.ErrMalformed},
		"an image of a petabyte": {func(s *hostileSource) {
			s.say(hello(nil), prepare(), list(&wire.ImageFile{Name: "pages-1.img", Size: 1 << 50}))
		}, errAbortedByPeer}, // waits for the bytes, until the source gives up
		"an image in crumbs": {func(s *hostileSource) {
			s.say(hello(nil), prepare())
			for i := range uint64(2 * maxIslands) {
				s.chunk("pages-1.img", 2*i, "x")
			}
		}, wire.ErrMalformed},
		"more images than may come": {func(s *hostileSource) {
			s.say(hello(nil), prepare())
			for i := range uint64(3 << 10) {
				s.chunk("pages-1.img", 1024*i, string(make([]byte, 1024)))
			}
		}, wire.ErrFull},
		"an image with another path": {func(s *hostileSource) {
			s.say(hello(nil), prepare())
			s.chunk("../../../tmp/x", 0, "x")
		}, wire.ErrMalformed},
		"a failure and no end": {func(s *hostileSource) {
			s.say(hello(nil), prepare(), &wire.Message{Body: &wire.Message_Failure{Failure: wire.NewFailure(wire.ErrNoSpace)}})
		}, wire.ErrNoSpace},
		"hanging up": {func(s *hostileSource) {
			s.say(hello(nil), prepare())
			s.cable.cut()
		}, ErrLinkLost},
		"never an end": {func(s *hostileSource) { s.say(hello(nil), prepare()) }, wire.ErrFull},
	}
}

// Whatever a source says: one error ends it, nothing runs here, and nothing of it is left.
func TestHostileSourceLeavesNothing(t *testing.T) {
	for name, hostile := range hostileSources() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				source, peer := newSessions(newCable(-1))
				receive := &Receive{
					Host: twinHost{w}, Journals: w.journals[1], Log: slog.New(slog.DiscardHandler),
					Limits: Limits{Images: 2 << 20, Time: time.Hour},
				}
				ended := make(chan error, 1)
				go func() { ended <- receive.Run(context.Background(), peer) }()
				go drainChannel(t.Context(), source.Control())
				go func() {
					hostile.acts(&hostileSource{t, w, source})
					if errors.Is(hostile.says, errAbortedByPeer) {
						time.Sleep(time.Minute)
						(&hostileSource{t, w, source}).say(&wire.Message{Body: &wire.Message_Abort{Abort: &wire.Abort{Reason: "%s"}}})
					}
				}()
				err := <-ended
				if !errors.Is(err, hostile.says) {
					t.Errorf("it ended with %v, want %v", err, hostile.says)
				}
				if _, here := w.states(); here != absent {
					t.Errorf("the container is %s here", here)
				}
				if w.reached("reserve") && !w.reached("discard") {
					t.Error("what was reserved was not given back")
				}
				source.cable.cut() // whoever still sends
				synctest.Wait()
			})
		})
	}
}

// What comes after Commit changes nothing any more: the container runs here.
func TestWordsAfterCommitAreTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.link = newCable(-1)
		w.push(t.Context(), true)
		if _, here := w.states(); here != running {
			t.Fatalf("the container is %s here", here)
		}
		again, peer := newSessions(newCable(-1))
		s := &hostileSource{t, w, again}
		done := make(chan error, 1)
		go func() { done <- w.desk.Answer(context.Background(), peer) }()
		go drainChannel(t.Context(), again.Control())
		s.say(&wire.Message{Body: &wire.Message_Abort{Abort: &wire.Abort{Reason: "now"}}})
		if err := <-done; !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("answered %v, want %v", err, wire.ErrMalformed)
		}
		if _, here := w.states(); here != running {
			t.Errorf("the container is %s here", here)
		}
		again.cable.cut()
	})
}

func drainChannel(ctx context.Context, ch Channel) {
	for {
		if _, err := ch.Recv(ctx, nil); err != nil {
			return
		}
	}
}

// How many lanes a session has is its source's word, and a session that only asks has none.
func TestSessionWithoutLanesBringsNothing(t *testing.T) {
	ask := func(edit func(*wire.Ask)) *wire.Message {
		a := &wire.Ask{Move: twinMove}
		edit(a)
		return &wire.Message{Body: &wire.Message_Ask{Ask: a}}
	}
	for name, c := range map[string]struct {
		says   *wire.Message
		resume bool
	}{
		"a move":            {says: hello(nil)},
		"rounds that go on": {ask(func(a *wire.Ask) { a.Rounds = true }), true},
		"memory to follow":  {ask(func(a *wire.Ask) { a.Follow = true }), true},
	} {
		for _, channels := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d channels", name, channels), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					source, peer := newSessions(newCable(-1))
					peer.channels = peer.channels[:channels]
					ended := make(chan error, 1)
					go func() {
						if c.resume {
							ended <- w.desk.Answer(context.Background(), peer)
							return
						}
						receive := &Receive{Host: twinHost{w}, Journals: w.journals[1], Log: slog.New(slog.DiscardHandler)}
						ended <- receive.Run(context.Background(), peer)
					}()
					go drainChannel(t.Context(), source.Control())
					(&hostileSource{t, w, source}).say(c.says)
					if err := <-ended; !errors.Is(err, wire.ErrMalformed) {
						t.Errorf("it ended with %v, want %v", err, wire.ErrMalformed)
					}
					if w.reached("reserve") {
						t.Error("a place was reserved")
					}
					source.cable.cut()
					synctest.Wait()
				})
			})
		}
	}
}
