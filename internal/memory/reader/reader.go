// Package reader reads the pages of tasks, stopped or running, with process_vm_readv into a fixed ring of buffers.
// What a task has in common with others since a fork stays so.
//
// The buffers are made once: reading into fresh memory costs three to eight times as much. Pages that a task never touched must
// not be asked for, since reading populates them.
package reader

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/memory"
)

// Options are how much a Reader reads at a time. The zero value means the defaults.
type Options struct {
	Lanes int // how many goroutines read and call back at the same time; 2 if 0
	Block int // bytes of one buffer, a multiple of the page size; 1 MiB if 0
}

// Block is what one lane has read.
type Block struct {
	Ranges []memory.Range // their pages lie in Data, one behind the other
	Data   []byte
	Gone   []memory.Range // asked for, and not there: unmapped, or a guard page
}

// Reader owns the buffers. One Read at a time.
type Reader struct {
	fillers []Filler
	buffers [][]byte
}

// New makes a reader with its buffers; it needs no Close. nil options are the defaults.
func New(options *Options) *Reader {
	o := Options{}
	if options != nil {
		o = *options
	}
	if o.Lanes <= 0 {
		o.Lanes = 2
	}
	if o.Block < memory.PageSize {
		o.Block = 1 << 20
	}
	r := &Reader{fillers: make([]Filler, o.Lanes), buffers: make([][]byte, o.Lanes)}
	for i := range r.buffers {
		r.buffers[i] = make([]byte, o.Block&^(memory.PageSize-1))
	}
	return r
}

// Read reads the ranges of a task and hands them on in blocks, from several goroutines at once and in no order. A block is the
// callback's until it returns. It ends with the first error: that of the callback, of ctx, or ErrTaskGone.
func (r *Reader) Read(ctx context.Context, pid int, ranges []memory.Range, each func(Block) error) error {
	var mu sync.Mutex
	left := append([]memory.Range(nil), ranges...)
	group, ctx := errgroup.WithContext(ctx)
	for lane := range r.buffers {
		group.Go(func() error {
			buf := r.buffers[lane]
			var batch []memory.Range
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				mu.Lock()
				batch, left = Cut(batch[:0], left, uint64(len(buf)/memory.PageSize))
				mu.Unlock()
				if len(batch) == 0 {
					return nil
				}
				got, gone, err := r.fillers[lane].Fill(pid, buf, batch)
				if err != nil {
					return err
				}
				if err := each(Block{Ranges: got, Data: buf[:total(got)], Gone: gone}); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

func total(ranges []memory.Range) (bytes uint64) {
	for _, r := range ranges {
		bytes += r.Bytes()
	}
	return bytes
}
