package keeper

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livemigrate/migrate/transport"
)

// The test binary is its own keeper: started with twinVerb, it listens where the router says, answers every frame with its
// pid, and ends after a frame "end".
const twinVerb = "keeper-twin"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == twinVerb {
		if err := runTwin(os.Args[2]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runTwin(socket string) error {
	line, err := openLine()
	if err != nil {
		return err
	}
	acceptor, err := openDoors(&PeerOrder{Socket: socket}, slog.New(slog.DiscardHandler))
	if err := errors.Join(ready(line, err), line.Close(), err); err != nil {
		return err
	}
	hub := transport.NewHub(acceptor, nil)
	ctx, end := context.WithTimeout(context.Background(), 20*time.Second)
	defer end()
	for {
		s, err := hub.Accept(ctx)
		if err != nil {
			return nil // told to end
		}
		for _, lane := range append(s.Lanes(), s.Control()) {
			go func() {
				for {
					frame, err := lane.Recv(ctx, nil)
					if err != nil {
						return
					}
					if string(frame) == "end" {
						end()
						return
					}
					_ = lane.Send(ctx, []byte(strconv.Itoa(os.Getpid())))
				}
			}()
		}
	}
}

// door is a serve reduced to its loop, which can be closed and opened again.
type door struct {
	net.Listener
	ctx    context.Context
	cancel context.CancelFunc
	busy   sync.WaitGroup
	left   atomic.Int32 // connections that Route is done with
}

func openDoor(t *testing.T, r *Router, path string) *door {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.busy.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			d.busy.Go(func() {
				_ = r.Route(d.ctx, conn, "peer")
				d.left.Add(1)
			})
		}
	})
	return d
}

// kill is the death of serve: every connection breaks.
func (d *door) kill() {
	_ = d.Close()
	d.cancel()
	d.busy.Wait()
}

func ask(t *testing.T, lane transport.Lane) string {
	t.Helper()
	if err := lane.Send(t.Context(), []byte("who?")); err != nil {
		t.Fatal(err)
	}
	answer, err := lane.Recv(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// newTwinRouter starts twins as keepers; the address is where its door is to be.
func newTwinRouter(t *testing.T) (*Router, transport.Address, transport.Dialer) {
	t.Helper()
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	router := &Router{
		Places:  Places{Root: filepath.Join(dir, "root")}.Fill(),
		Program: program, Args: []string{twinVerb}, Log: slog.New(slog.DiscardHandler),
	}
	address := transport.Address{Scheme: transport.Unix, Path: filepath.Join(dir, "door.sock")}
	dialer, err := transport.NewDialer(address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return router, address, dialer
}

// What ssh starts ends its connection by ending itself: it stays with a lane, even where it could hand it over.
func TestOnlyServeHandsLanesOver(t *testing.T) {
	for name, stays := range map[string]bool{"serve": false, "receive": true} {
		t.Run(name, func(t *testing.T) {
			router, address, dialer := newTwinRouter(t)
			router.Stays = stays
			d := openDoor(t, router, address.Path)
			defer d.kill()
			s, err := transport.Connect(t.Context(), dialer, &transport.ConnectOptions{Lanes: 2})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			for _, lane := range s.Lanes() {
				ask(t, lane)
			}
			want := int32(2)
			if stays {
				want = 0
			}
			for deadline := time.Now().Add(10 * time.Second); d.left.Load() < want && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if got := d.left.Load(); got != want {
				t.Errorf("%d lanes were left to the keeper, want %d", got, want)
			}
			if err := s.Control().Send(t.Context(), []byte("end")); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whoever knocks at a keeper and hands nothing over does not keep it from ending.
func TestDoorsCloseOnACallerThatSaysNothing(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "k.sock")
	d, err := openDoors(&PeerOrder{Socket: socket}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", lanesSocket(socket))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(handLimit / 2):
		t.Error("it waits for that caller")
	}
}

func TestDeathOfServeCostsAConnectionAndNoMore(t *testing.T) {
	router, address, dialer := newTwinRouter(t)
	first := openDoor(t, router, address.Path)
	s, err := transport.Connect(t.Context(), dialer, &transport.ConnectOptions{Lanes: 2})
	if err != nil {
		t.Fatal(err)
	}
	pid := ask(t, s.Control())
	for i, lane := range s.Lanes() {
		if got := ask(t, lane); got != pid {
			t.Errorf("lane %d reached process %s, control %s", i, got, pid)
		}
	}
	first.kill()
	if _, err := s.Control().Recv(t.Context(), nil); err == nil {
		t.Error("the session outlived its connections")
	}
	_ = s.Close()

	second := openDoor(t, router, address.Path)
	defer second.kill()
	again, err := transport.Connect(t.Context(), dialer, &transport.ConnectOptions{Token: s.Token(), Resume: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if got := ask(t, again.Control()); got != pid {
		t.Errorf("the token led to process %s, not to %s", got, pid)
	}
	if err := again.Control().Send(t.Context(), []byte("end")); err != nil {
		t.Error(err)
	}
}

func TestLaneWithoutASessionStartsNothing(t *testing.T) {
	dir := t.TempDir()
	router := &Router{
		Places:  Places{Root: filepath.Join(dir, "root")}.Fill(),
		Program: "/nonexistent", Log: slog.New(slog.DiscardHandler),
	}
	ours, theirs := net.Pipe()
	go func() { _ = router.Route(t.Context(), theirs, "peer") }()
	lane := transport.Preamble{Kind: transport.KindLane, Token: transport.NewToken(), Lanes: 1}
	if err := transport.WritePreamble(t.Context(), ours, lane); err != nil {
		t.Fatal(err)
	}
	if err := transport.ReadAnswer(t.Context(), ours); err == nil {
		t.Error("a lane of no session was accepted")
	}
}
