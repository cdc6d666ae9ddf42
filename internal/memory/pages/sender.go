package pages

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/reader"
)

// Lane sends one frame to the peer's store. It blocks while the link is busy: that is how its speed is measured. The frame is the
// lane's until it returns. A lane is called by one goroutine at a time.
type Lane func(ctx context.Context, frame []byte) error

// Change is what one address space needs in a round.
type Change struct {
	Pid   int    // a task that has the space
	Space uint64 // the space's id in the ledger
	New   bool   // what the ledger knows of that id is of another space: it is dropped first
	Read  []memory.Range
	Gone  []memory.Range // not there any more. A page in both is read.
}

// Round is what a Send did, in bytes of memory unless said otherwise.
type Round struct {
	Scanned uint64 // read: Zero + Same + Shared + Copied
	Zero    uint64 // pages of zeros
	Same    uint64 // unchanged since they were sent
	Shared  uint64 // equal to other pages
	Copied  uint64 // sent
	Gone    uint64 // asked for, and not there
	Wire    uint64 // bytes of all frames
	Frames  int
	Sparse  int   // of them, without their zero words
	Zstd    int   // of them, compressed
	Ended   []int // pids whose task has ended, or has become another program; their pages were not all read
	Took    time.Duration
}

func (r *Round) add(o *Round) {
	r.Scanned += o.Scanned
	r.Zero += o.Zero
	r.Same += o.Same
	r.Shared += o.Shared
	r.Copied += o.Copied
	r.Gone += o.Gone
	r.Wire += o.Wire
	r.Frames += o.Frames
	r.Sparse += o.Sparse
	r.Zstd += o.Zstd
}

// SenderOptions are how a sender works. The zero value means the defaults.
type SenderOptions struct {
	// Workers read, compare and encode at the same time, with about 4 MB each. One more than there are lanes, so that a lane
	// need not wait for the next frame, is enough; 3 if 0. SendNow has one more.
	Workers     int
	Compression Compression
	// Patient: a round that fails is not abandoned in the ledger. The caller calls Abandon, or Regain when it knows more.
	Patient bool
}

// Sender brings pages of tasks to the peer's store: it reads them, leaves out what the peer has or needs no bytes for, and sends
// the rest in frames. One Send at a time, and SendNow beside it.
type Sender struct {
	ledger  *Ledger
	pace    *pace
	workers []*worker
	patient bool

	urgent sync.Mutex // of the last worker
}

// NewSender makes a sender with all its buffers; it needs no Close. nil options are the defaults.
func NewSender(ledger *Ledger, options *SenderOptions) (*Sender, error) {
	o := SenderOptions{}
	if options != nil {
		o = *options
	}
	if o.Workers <= 0 {
		o.Workers = 3
	}
	s := &Sender{ledger: ledger, pace: &pace{mode: o.Compression}, patient: o.Patient}
	for range o.Workers + 1 {
		w, err := newWorker()
		if err != nil {
			return nil, err
		}
		s.workers = append(s.workers, w)
	}
	return s, nil
}

// round is the work that the workers share.
type round struct {
	ledger *Ledger
	pace   *pace
	lanes  chan Lane

	mu   sync.Mutex
	left []Change
	pids []int // that have ended
}

// Send reads what the changes tell, and sends it over the lanes, at least one, until all of it is handed to them. The caller then
// waits for the peer's word that all is stored, and calls Settle on the ledger. A task that has ended is no error: it is named in
// the Round. On an error the round is abandoned in the ledger (see Abandon), unless the sender is patient.
func (s *Sender) Send(ctx context.Context, changes []Change, lanes []Lane) (Round, error) {
	start := time.Now()
	if len(lanes) == 0 {
		return Round{}, errors.New("send pages: no lane")
	}
	out, err := s.run(ctx, s.plan(changes), lanes, s.workers[:len(s.workers)-1])
	out.Took = time.Since(start)
	return out, err
}

// SendNow sends pages that a task at the peer waits for, past those that a Send on its way has in hand. It has a worker of its
// own, and for the lane nothing else should be in the way either. Otherwise it is as Send.
func (s *Sender) SendNow(ctx context.Context, change Change, lane Lane) (Round, error) {
	s.urgent.Lock()
	defer s.urgent.Unlock()
	start := time.Now()
	out, err := s.run(ctx, s.plan([]Change{change}), []Lane{lane}, s.workers[len(s.workers)-1:])
	out.Took = time.Since(start)
	return out, err
}

func (s *Sender) run(ctx context.Context, work []Change, lanes []Lane, workers []*worker) (Round, error) {
	r := &round{ledger: s.ledger, pace: s.pace, lanes: make(chan Lane, len(lanes)), left: work}
	for _, lane := range lanes {
		r.lanes <- lane
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range workers {
		group.Go(func() error { return w.work(ctx, r) })
	}
	err := group.Wait()
	var out Round
	for _, w := range workers {
		out.add(&w.stats)
	}
	slices.Sort(r.pids)
	out.Ended = slices.Compact(r.pids)
	if err != nil && !s.patient {
		s.ledger.Abandon()
	}
	return out, err
}

// plan tells the ledger what is gone, and brings each page that must be read once: two tasks may have one space, and a page that
// was read twice in a round would travel twice.
func (s *Sender) plan(changes []Change) []Change {
	var out []Change
	index := map[uint64]int{}
	for _, c := range changes {
		if c.New {
			s.ledger.Drop(c.Space)
		}
	}
	for _, c := range changes {
		s.ledger.Gone(c.Space, c.Gone)
		i, there := index[c.Space]
		if !there {
			i = len(out)
			index[c.Space] = i
			out = append(out, Change{Pid: c.Pid, Space: c.Space})
		}
		out[i].Read = append(out[i].Read, c.Read...)
	}
	for i := range out {
		out[i].Read = reader.Normal(out[i].Read)
	}
	return out
}

// next takes up to pages pages off the work, all of one space; no Change when none are left.
func (r *round) next(batch []memory.Range, pages uint64) (*Change, []memory.Range) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.left) > 0 {
		c := &r.left[0]
		batch, c.Read = reader.Cut(batch, c.Read, pages)
		if len(batch) > 0 {
			return c, batch
		}
		r.left = r.left[1:]
	}
	return nil, batch
}

// ended gives a change up whose task is gone.
func (r *round) ended(c *Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Read = nil
	r.pids = append(r.pids, c.Pid)
}
