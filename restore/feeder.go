package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/livemigrate/migrate/internal/memory/feed"
	"github.com/livemigrate/migrate/internal/memory/packed"
	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/runtime"
)

// Descriptors that the process of Feed inherits.
const (
	feedLine   = 3 // to whoever restores
	feedLayout = 4
	feedFiles  = 5 // the first file of pages
)

// feedOrder is what that process is told first.
type feedOrder struct {
	Container string     `json:"container"`
	StateDir  string     `json:"state_dir"`
	Dir       string     `json:"dir"` // of the socket
	Files     []feedFile `json:"files"`
}

type feedFile struct {
	Slot  uint64 `json:"slot"`
	Chunk int64  `json:"chunk,omitempty"` // bytes that a digest covers, 0 for none
	Sums  []byte `json:"sums,omitempty"`

	Size   int64   `json:"size,omitempty"`   // of a compressed file, unpacked
	Frames []int64 `json:"frames,omitempty"` // bytes of its chunks as they are stored; then the digests are of these
}

// feedWord is what the process says on the line: it listens, it holds the memory of every task, or why not. The line's end
// tells it that CRIU has ended.
type feedWord struct {
	Ready bool   `json:"ready,omitempty"`
	Held  bool   `json:"held,omitempty"`
	Error string `json:"error,omitempty"`
}

// abandonLimit is how long a CRIU may live on whose caller is gone.
const abandonLimit = 10 * time.Second

// Feed is the process that gives a container its memory after Options.Feeder has let it run: nothing else starts it. It
// returns when the container has all of it. A container whose memory cannot be read is killed: it would stand still for ever.
// r is where the container is.
func Feed(ctx context.Context, r *runtime.Runtime, log *slog.Logger) error {
	if err := process.LeaveCgroups(); err != nil {
		log.Debug("leave cgroups", "error", err)
	}
	file := os.NewFile(feedLine, "line")
	line, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("feed memory: %w", err)
	}
	f := &feeder{runtime: r, log: log, line: line, hears: json.NewDecoder(line), says: json.NewEncoder(line)}
	if err := f.run(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("feed memory: %w", err)
	}
	return nil
}

type feeder struct {
	runtime *runtime.Runtime
	log     *slog.Logger
	line    net.Conn
	hears   *json.Decoder
	says    *json.Encoder
	order   feedOrder
	feed    *feed.Supervisor
	over    chan struct{} // closed when the line is
}

func (f *feeder) run(ctx context.Context) error {
	if err := f.start(ctx); err != nil {
		return errors.Join(err, f.say(feedWord{Error: err.Error()}))
	}
	// Whoever restores may be gone: that is no reason to leave the container alone.
	_ = f.say(feedWord{Ready: true})
	f.over = make(chan struct{})
	go f.listen()
	if err := f.takeHold(); err != nil {
		f.log.Error("the container's memory is not taken hold of", "container", f.order.Container, "error", err)
		_ = f.say(feedWord{Error: err.Error()})
		<-f.over // the processes are dead then
		return errors.Join(err, f.feed.Close())
	}
	_ = f.say(feedWord{Held: true})
	return f.feed.Finish(f.order.Container, func() error {
		select { // CRIU would wait for ever for a task that is killed under its hands
		case <-f.over:
		case <-time.After(abandonLimit):
		}
		return f.kill(ctx)
	})
}

// start takes the order, and the socket.
func (f *feeder) start(ctx context.Context) error {
	if err := f.hears.Decode(&f.order); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	for fd := feedLayout; fd < feedFiles+len(f.order.Files); fd++ {
		if err := descriptor.Withhold(fd); err != nil {
			return err
		}
	}
	layout := os.NewFile(feedLayout, feed.LayoutName)
	defer layout.Close()
	o := &feed.Options{Dir: f.order.Dir, StateDir: f.order.StateDir, Disk: true, Log: f.log}
	defer func() {
		for _, p := range o.Store {
			p.File.Close()
		}
	}()
	for i, part := range f.order.Files {
		p := feed.Part{File: os.NewFile(uintptr(feedFiles+i), fmt.Sprintf("images %d", i)), Slot: part.Slot}
		var list [][16]byte
		for sums := part.Sums; len(sums) >= 16; sums = sums[16:] {
			list = append(list, [16]byte(sums))
		}
		switch {
		case part.Frames != nil:
			p.Packed = &packed.Index{Size: part.Size, Chunk: part.Chunk, Frames: part.Frames, Sums: list}
		case part.Chunk > 0:
			p.Digests = &feed.Digests{Chunk: part.Chunk, Sums: list}
		}
		o.Store = append(o.Store, p)
	}
	var err error
	if f.feed, err = feed.Start(ctx, o); err != nil {
		return err
	}
	if err := f.feed.Load(layout); err != nil {
		return errors.Join(err, f.feed.Close())
	}
	return nil
}

func (f *feeder) say(w feedWord) error { return f.says.Encode(w) }

// listen waits for the line's end.
func (f *feeder) listen() {
	defer close(f.over)
	_, _ = io.Copy(io.Discard, f.line)
}

var errAbandoned = errors.New("whoever restored the container is gone")

// takeHold returns when the memory of every task is held. From then on the tasks may run, whatever becomes of the restore.
func (f *feeder) takeHold() error {
	ctx, abandon := context.WithCancelCause(context.Background())
	defer abandon(nil)
	go func() {
		select {
		case <-f.over:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(abandonLimit):
			abandon(errAbandoned)
		case <-ctx.Done():
		}
	}()
	return f.feed.AwaitTasks(ctx)
}

// kill ends the container, if it is the one that was restored and not another of its name.
func (f *feeder) kill(ctx context.Context) error {
	c, err := f.runtime.Load(f.order.Container)
	if errors.Is(err, runtime.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill container: %w", err)
	}
	ours, err := f.feed.Feeds(c.StateDir())
	if err != nil {
		return fmt.Errorf("kill container: %w", err)
	}
	if !ours { // it was deleted
		return nil
	}
	return c.KillAll(ctx)
}
