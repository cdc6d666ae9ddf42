package monitor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/livemigrate/migrate/internal/sys/socket"
	"github.com/livemigrate/migrate/internal/sys/terminal"
)

const (
	maxGuests = 64
	// maxBehind is how much output is kept for a client that reads slowly. What it misses, it is told.
	maxBehind = 256 << 10
	// farewellLimit is how long a client has to read the end.
	farewellLimit = 2 * time.Second
)

// audience are the clients that have attached themselves to the container.
type audience struct {
	input *input // nil: they only watch

	mu     sync.Mutex
	guests map[*guest]bool
	last   *frame // of everybody, once it has come: nobody joins any more
	gone   sync.WaitGroup
}

var (
	errFull = errors.New("too many clients are attached already")
	errOver = errors.New("the container has ended, or moved to another host")
)

// guest is one of them.
type guest struct {
	conn *net.UnixConn

	mu     sync.Mutex
	queue  []frame
	behind int    // bytes in the queue
	missed uint64 // bytes of output behind the queue that had no room in it
	more   chan struct{}
	over   bool // nothing comes behind the queue
}

// admit begins with an answer, which no output comes before.
func (a *audience) admit(conn *net.UnixConn, answer response) (*guest, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.last != nil:
		return nil, errOver
	case len(a.guests) >= maxGuests:
		return nil, errFull
	case a.guests == nil:
		a.guests = make(map[*guest]bool)
	}
	g := &guest{conn: conn, more: make(chan struct{}, 1)}
	a.guests[g] = true
	a.gone.Go(func() { g.send(answer) })
	return g, nil
}

// show never waits: a client that does not read misses it.
func (a *audience) show(output []byte) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.guests) == 0 {
		return
	}
	f := frame{frameOutput, append([]byte(nil), output...)}
	for g := range a.guests {
		g.offer(f)
	}
}

// dismiss ends all connections with a frame, once what is before it has been read.
func (a *audience) dismiss(last frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil {
		return
	}
	a.last = &last
	for g := range a.guests {
		g.finish(&last)
	}
}

// stay undoes a dismissal to another host: the container runs on here, and may have clients again.
func (a *audience) stay() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil && a.last.kind == frameMoved {
		a.last = nil
	}
}

// exit is dismiss with how the container ended, and waits until everybody knows.
func (a *audience) exit(e *Exit) {
	if e == nil { // nobody knows
		e = &Exit{Status: -1}
	}
	payload, _ := json.Marshal(e) // of numbers
	a.dismiss(frame{frameExit, payload})
	a.gone.Wait()
}

// attend is with a client until it has gone.
func (a *audience) attend(g *guest) {
	for first := true; ; {
		f, err := readFrame(g.conn)
		if err != nil {
			break
		}
		switch {
		case a.input == nil:
		case f.kind == frameInput:
			_ = a.input.write(f.payload, func() bool { return socket.Gone(g.conn) })
		case f.kind == frameSize && len(f.payload) == 4:
			size := terminal.Size{Rows: binary.BigEndian.Uint16(f.payload), Columns: binary.BigEndian.Uint16(f.payload[2:])}
			a.input.resize(size, first)
			first = false
		}
	}
	a.mu.Lock()
	delete(a.guests, g)
	a.mu.Unlock()
	g.finish(nil)
}

func (g *guest) offer(f frame) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.over:
		return
	case g.missed > 0 || g.behind+len(f.payload) > maxBehind:
		g.missed += uint64(len(f.payload))
	default:
		g.queue, g.behind = append(g.queue, f), g.behind+len(f.payload)
	}
	g.wake()
}

func (g *guest) finish(last *frame) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return
	}
	g.over = true
	if last != nil {
		g.tellMissed()
		g.queue = append(g.queue, *last)
	}
	_ = g.conn.SetWriteDeadline(time.Now().Add(farewellLimit))
	g.wake()
}

func (g *guest) tellMissed() {
	if g.missed > 0 {
		g.queue = append(g.queue, frame{frameMissed, binary.BigEndian.AppendUint64(nil, g.missed)})
		g.missed = 0
	}
}

func (g *guest) wake() {
	select {
	case g.more <- struct{}{}:
	default:
	}
}

// send is the only writer on the connection. It closes it at the end, so that attend ends too.
func (g *guest) send(answer response) {
	defer g.conn.Close()
	err := json.NewEncoder(g.conn).Encode(answer)
	for over := false; err == nil && !over; {
		<-g.more
		g.mu.Lock()
		g.tellMissed() // what is missed came after the queue, and before all that comes now
		queue := g.queue
		g.queue, g.behind, over = nil, 0, g.over
		g.mu.Unlock()
		for _, f := range queue {
			if err = f.writeTo(g.conn); err != nil {
				break
			}
		}
	}
}
