package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/report"
	"github.com/livemigrate/migrate/internal/wire"
)

// world is two hosts and one container, reduced to what the promise is about: who runs. Every change is checked.
type world struct {
	t *testing.T

	mu         sync.Mutex
	source     copyState
	peer       copyState
	failAt     string // name of the twin's step that fails
	thawAt     bool   // and thawing fails then as well
	keep       bool
	closeFails bool            // and letting go of the memory
	linked     bool            // the dump makes names in the tree
	passTakes  []time.Duration // one pass after the other; further ones take no time
	hostile    []byte          // a frame of pages that goes with the others
	hangAt     string          // and of the one at the peer that does not come to an end
	steps      []string
	journals   [2]string
	images     string
	link       *cable
	links      []*cable        // of the sessions after the first
	memory     *twinMemory     // nil: as on a host that can't
	offers     *wire.Offer     // what the peer can; nil: no feeding
	finds      []*wire.Finding // the source's preflight
	peerFinds  []*wire.Finding // and the peer's
	lacks      []*wire.Finding // what the container runs without at the peer
	mode       Mode
	target     time.Duration // downtime that Auto aims at
	converge   bool
	turns      Turns
	events     []report.Event
	tried      *Attempt       // as the source has it
	receive    *Receive       // of the last move
	desk       *Desk          // of the process that receives it
	store      *twinStore     // and the peer's memory
	busy       sync.WaitGroup // the peer's processes
}

type copyState string

const (
	absent  copyState = "absent"
	running copyState = "running"
	frozen  copyState = "frozen"
	ended   copyState = "ended" // its state is kept
)

var errTwin = errors.New("twin fails")

const (
	lateDump = "late dump" // a dump fails while a delta is on its way,
	givenUp  = "given up"  // which then tells the peer so
)

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	w := &world{t: t, source: running, peer: absent, images: filepath.Join(dir, "images")}
	t.Cleanup(w.busy.Wait) // before its directory is removed
	w.journals = [2]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	if err := os.Mkdir(w.images, 0o700); err != nil {
		t.Fatal(err)
	}
	w.desk = w.newDesk()
	return w
}

// newDesk is that of a process that has just been started at the peer.
func (w *world) newDesk() *Desk {
	return &Desk{
		Host: twinHost{w}, Journals: w.journals[1], Log: slog.New(slog.DiscardHandler),
		Adopted: func(r *Receive) { w.busy.Go(func() { _ = r.Settle(context.Background()) }) },
	}
}

// step records that a step was reached and fails it if it is the one to fail.
func (w *world) step(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, name)
	if w.failAt == name || w.thawAt && name == "thaw" || w.closeFails && name == "close memory" {
		return fmt.Errorf("%s: %w", name, errTwin)
	}
	return nil
}

func (w *world) set(who *copyState, to copyState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*who = to
	if w.source == running && w.peer == running {
		w.t.Error("two copies run")
	}
}

func (w *world) states() (source, peer copyState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.source, w.peer
}

// --- the source's twin

func (w *world) Hello(context.Context) (*wire.Hello, []*wire.Finding, error) {
	return &wire.Hello{Container: "web", Source: "a", MemoryBytes: twinPages * pageSize, Trees: []*wire.Tree{{Name: "rootfs"}}}, w.finds, w.step("hello")
}

func (w *world) Offered() { _ = w.step("offered") }

func (w *world) Trees() []Tree { return []Tree{w} }

func (w *world) Pass(ctx context.Context, ch Channel) (uint64, error) {
	if err := w.step("pass"); err != nil {
		return 0, err
	}
	if len(w.passTakes) > 0 {
		time.Sleep(w.passTakes[0])
		w.passTakes = w.passTakes[1:]
	}
	return 5, ch.Send(ctx, []byte("files"))
}

func (w *world) Again() bool { return true }

func (w *world) Delta(ctx context.Context, ch Channel) (uint64, error) {
	if err := w.step("delta"); err != nil {
		return 0, err
	}
	if w.failAt == lateDump {
		<-ctx.Done()
		err := ch.Send(context.WithoutCancel(ctx), []byte(givenUp))
		time.Sleep(100 * time.Millisecond) // the peer's word is here before the source has ended its own work
		return 0, err
	}
	return 5, ch.Send(ctx, []byte("delta"))
}

func (w *world) Dump(_ context.Context, dir string, gates DumpGates) (Held, error) {
	gates.Freezing()
	if err := w.step("dump"); err != nil {
		return nil, err
	}
	w.set(&w.source, frozen)
	gates.Frozen()
	for w.failAt == lateDump && !w.reached("delta") {
		time.Sleep(time.Millisecond)
	}
	if err := w.step(lateDump); err != nil {
		w.set(&w.source, running)
		return nil, err
	}
	pages := slices.Repeat([]byte("memory!!"), wire.MaxChunk/8*3/2)
	for name, content := range map[string][]byte{"pages-1.img": pages, "core-1.img": []byte("core"), "empty.img": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) Slow(_ context.Context, part float64) error {
	return w.step(fmt.Sprintf("slow %.1f", part))
}

func (w *world) Growing(string) ([]string, error) { return []string{"pages-1.img", "pages-9.img"}, nil }

func (w *world) Memory(context.Context) (Memory, error) {
	if err := w.step("memory"); err != nil {
		return nil, err
	}
	if w.memory == nil {
		return nil, nil
	}
	return w.memory, nil
}

func (w *world) Remainder(context.Context) (Memory, error) { return w.memory, w.step("remainder") }

func (w *world) Stdio(context.Context) ([]byte, error) { return []byte("{}"), w.step("stdio") }

func (w *world) Linked() (bool, error) { return w.linked, nil }

func (w *world) Commit(context.Context) error {
	w.set(&w.source, absent)
	return w.step("kill")
}

func (w *world) Rollback(context.Context) error {
	if err := w.step("thaw"); err != nil {
		return errors.Join(err, ErrStillFrozen)
	}
	w.set(&w.source, running)
	return nil
}

func (w *world) Revive(context.Context) error {
	w.set(&w.source, running)
	return nil
}

func (w *world) SayMoved(context.Context) {
	if _, peer := w.states(); peer != running {
		w.t.Errorf("clients are sent to the peer, where it is %s", peer)
	}
	_ = w.step("say moved")
}

func (w *world) Stop(context.Context) error {
	w.set(&w.source, ended)
	return w.step("stop")
}

func (w *world) Destroy(context.Context) error {
	w.set(&w.source, absent)
	return w.step("destroy")
}

// --- the peer's twin

type twinHost struct{ *world }

func (h twinHost) Look(context.Context, *wire.Hello) (*wire.Offer, error) {
	if len(wire.Blockers(h.peerFinds)) > 0 {
		return nil, &wire.RefusalError{Findings: h.peerFinds, Cause: wire.ErrIncompatible}
	}
	return &wire.Offer{Destination: "b", Findings: h.peerFinds}, h.step("look")
}

func (h twinHost) Reserve(context.Context, *wire.Hello) (Place, *wire.Offer, error) {
	if err := h.step("reserve"); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", wire.ErrExists, err)
	}
	if len(wire.Blockers(h.peerFinds)) > 0 {
		return nil, nil, &wire.RefusalError{Findings: h.peerFinds, Cause: wire.ErrIncompatible}
	}
	dir, err := os.MkdirTemp(filepath.Dir(h.images), "spool")
	offer := &wire.Offer{Destination: "b"}
	if h.offers != nil {
		offer = proto.CloneOf(h.offers)
	}
	h.store = &twinStore{came: make(map[uint64]bool)}
	return twinPlace{h.world, dir, h.store}, offer, err
}

func (h twinHost) Discard(context.Context, journal.Move) error {
	h.set(&h.peer, absent)
	return h.step("discard remains")
}

func (h twinHost) Settle(context.Context, journal.Move) error { return h.step("settle") }

func (h twinHost) Adopt(context.Context, journal.Move) (Adopted, error) {
	if err := h.step("adopt"); err != nil {
		return nil, wire.ErrOwed
	}
	if _, peer := h.states(); peer != running {
		return nil, wire.ErrEnded
	}
	if h.store.debt.Missing() == 0 {
		return nil, wire.ErrPaid
	}
	return twinAdopted{h.store.debt, twinPlace{h.world, "", h.store}}, nil
}

type twinPlace struct {
	*world
	spool string
	store *twinStore
}

func (p twinPlace) Images() string { return p.spool }

func (p twinPlace) Sync(ctx context.Context, _ int, ch Channel) (uint64, error) {
	if err := p.step("sync"); err != nil {
		return 0, err
	}
	frame, err := ch.Recv(ctx, nil)
	if string(frame) == givenUp {
		return 0, errors.New("peer: context canceled")
	}
	if p.hangAt == "delta" && p.reached("dump") {
		<-ctx.Done()
	}
	return uint64(len(frame)), err
}

func (p twinPlace) Prepare(context.Context) ([]*wire.Finding, error) { return nil, p.step("prepare") }

func (p twinPlace) Restore(ctx context.Context, _ []byte) (Gate, error) {
	if err := p.step("restore"); err != nil {
		return nil, err
	}
	for name, size := range map[string]int64{"pages-1.img": wire.MaxChunk / 8 * 3 / 2 * 8, "core-1.img": 4, "empty.img": 0} {
		info, err := os.Stat(filepath.Join(p.spool, name))
		if err != nil || info.Size() != size {
			p.t.Errorf("image %s: %v, %v", name, info, err)
		}
	}
	p.checkPages()
	p.set(&p.peer, frozen)
	if p.store.debt != nil {
		if err := p.store.debt.need(ctx, 0); err != nil { // CRIU itself touches one
			return nil, err
		}
	}
	return p, nil
}

func (p twinPlace) Lacks() []*wire.Finding { return p.lacks }

func (p twinPlace) Wrote() time.Duration { return 2 * time.Millisecond }

func (p twinPlace) Open(ctx context.Context, journalRunning func() error) error {
	err := p.step("open")
	switch p.hangAt {
	case "open":
		<-ctx.Done()
		err = ctx.Err()
	case "open for good":
		<-p.t.Context().Done()
		err = errTwin
	}
	if err == nil {
		err = journalRunning()
	}
	if err != nil {
		p.set(&p.peer, absent)
		return err
	}
	p.set(&p.peer, running)
	return nil
}

func (p twinPlace) Discard(context.Context) error {
	p.set(&p.peer, absent)
	return p.step("discard")
}

// --- the link's twin

// cable joins two hosts. After cutAfter control frames, counted over both directions, it is dead.
type cable struct {
	mu           sync.Mutex
	frames       int
	cutAfter     int // -1: never
	data         int // frames on other lanes
	dataCutAfter int // 0: never
	dead         chan struct{}
}

func newCable(cutAfter int) *cable { return &cable{cutAfter: cutAfter, dead: make(chan struct{})} }

// count is called for each control frame about to be sent; swallow tells that the frame is lost with the link.
func (c *cable) count() (swallow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frames == c.cutAfter {
		c.cut()
		return true
	}
	c.frames++
	return false
}

func (c *cable) countData() (swallow bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data++
	if c.data == c.dataCutAfter {
		c.cut()
		return true
	}
	return false
}

func (c *cable) cut() {
	select {
	case <-c.dead:
	default:
		close(c.dead)
	}
}

type twinChannel struct {
	cable   *cable
	control bool
	out, in chan []byte
}

func (ch *twinChannel) Send(ctx context.Context, parts ...[]byte) error {
	if ch.control && ch.cable.count() || !ch.control && ch.cable.countData() {
		return io.ErrClosedPipe
	}
	select {
	case <-ch.cable.dead:
		return io.ErrClosedPipe
	default:
	}
	select {
	case ch.out <- slices.Concat(parts...):
		return nil
	case <-ch.cable.dead:
		return io.ErrClosedPipe
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (ch *twinChannel) Recv(ctx context.Context, _ []byte) ([]byte, error) {
	select {
	case frame := <-ch.in:
		return frame, nil
	default:
	}
	select {
	case frame := <-ch.in:
		return frame, nil
	case <-ch.cable.dead:
		select { // what came before the end
		case frame := <-ch.in:
			return frame, nil
		default:
			return nil, io.EOF
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type twinSession struct {
	cable    *cable
	channels []*twinChannel
}

func newSessions(c *cable) (source, peer *twinSession) {
	source, peer = &twinSession{cable: c}, &twinSession{cable: c}
	for i := range 4 {
		there, back := make(chan []byte, 16), make(chan []byte, 16)
		source.channels = append(source.channels, &twinChannel{c, i == 0, there, back})
		peer.channels = append(peer.channels, &twinChannel{c, i == 0, back, there})
	}
	return source, peer
}

func (s *twinSession) Control() Channel { return s.channels[0] }
func (s *twinSession) Urgent() Channel  { return s.channels[1] }
func (s *twinSession) Peer() string     { return "twin" }
func (s *twinSession) Proof() string    { return "proof" }
func (s *twinSession) Sent() uint64     { return 1 }
func (s *twinSession) Close() error     { s.cable.cut(); return nil }

func (s *twinSession) Files() Channel {
	if len(s.channels) < 2 {
		return nil
	}
	return s.channels[1]
}

func (s *twinSession) Images() (images []Channel) {
	for i, channel := range s.channels {
		if i >= 2 {
			images = append(images, channel)
		}
	}
	return images
}

// --- one move

const twinMove = "00112233445566778899aabbccddeeff"

// dial connects with the peer: first to Receive, later to Answer. reachable says whether a second connection works.
func (w *world) dial(reachable bool) Dial {
	return func(_ context.Context, why Why) (Session, error) {
		resume := why != ToMove
		if resume && !reachable {
			return nil, errors.New("no route to host")
		}
		c := newCable(-1)
		if !resume {
			c = w.link
		} else if len(w.links) > 0 {
			c, w.links = w.links[0], w.links[1:]
		}
		source, peer := newSessions(c)
		w.busy.Go(func() {
			if resume {
				_ = w.desk.Answer(context.Background(), peer)
				_ = peer.Close()
				return
			}
			receive := &Receive{Host: twinHost{w}, Journals: w.journals[1], Log: slog.New(slog.DiscardHandler)}
			w.receive = receive
			w.desk.Receives(receive)
			_ = receive.Run(context.Background(), peer)
		})
		return source, nil
	}
}

func (w *world) push(ctx context.Context, reachable bool) *report.Result {
	j, err := journal.Create(w.journals[0], journal.Move{Name: twinMove, Role: journal.Source, Container: "web", Keep: w.keep})
	if err != nil {
		w.t.Fatal(err)
	}
	defer j.Close()
	p := &Push{
		Move: twinMove, Container: w, Dial: w.dial(reachable), Journal: j, Images: w.images,
		Mode: w.mode, MaxDowntime: w.target, Converge: w.converge, Turns: w.turns, Record: report.NewRecorder(func(e report.Event) { w.events = append(w.events, e) }), Log: slog.New(slog.DiscardHandler), Retry: 3 * askInterval, Keep: w.keep,
	}
	w.tried = p.Run(ctx)
	return p.Record.Finish(w.tried.Result)
}

func (w *world) resolve(reachable bool, force Force) (report.Outcome, error) {
	story, err := journal.Read(w.journals[0], twinMove, journal.Source)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &Resolve{Story: story, Container: w, Dial: w.dial(reachable), Patience: 4 * askInterval, Force: force, Log: slog.New(slog.DiscardHandler)}
	return r.Run(context.Background())
}

func (w *world) reached(step string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.steps, step)
}

func (w *world) story(role journal.Role) string {
	dir := w.journals[0]
	if role == journal.Peer {
		dir = w.journals[1]
	}
	s, err := journal.Read(dir, twinMove, role)
	if err != nil {
		return err.Error()
	}
	var steps []string
	for _, r := range s.Records {
		steps = append(steps, string(r.Step))
	}
	return strings.Join(steps, " ")
}
