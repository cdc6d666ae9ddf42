package unlinked

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// passing is one pass, or the last difference.
type passing struct {
	source  *Source
	workers int
	began   time.Time
	stats   Stats
	doubt   bool // nobody knows how much of the pass before has arrived

	mu   sync.Mutex // of ch, stats and digests
	ch   Channel
	last time.Time // that something was sent
}

func (s *Source) begin(ch Channel, workers int) *passing {
	now := time.Now()
	p := &passing{source: s, workers: workers, began: now, ch: ch, last: now, doubt: s.doubt}
	s.doubt = true
	return p
}

// frozenWorkers is how many read at once while the container stands still, and CRIU works beside.
func frozenWorkers() int { return min(4, runtime.GOMAXPROCS(0)) }

func (p *passing) end(ctx context.Context) (Stats, error) {
	err := p.ch.Send(ctx, numbers(frameEnd))
	p.stats.Elapsed = time.Since(p.began)
	return p.stats, err
}

// confirm asks the peer whether it has come this far. What was sent counts as held there from then on, and no sooner: a link
// that breaks takes with it what its buffers have.
func (p *passing) confirm(ctx context.Context) error {
	if err := p.ask(ctx); err != nil {
		return err
	}
	for _, f := range p.source.files {
		if f.file == nil {
			f.announced = 0
		}
		f.known, f.complete = f.announced, f.brought
		f.digests.confirm()
	}
	p.source.doubt = false
	return nil
}

// announce tells of files that are new, or gone, and asks which of them the peer can have. In doubt it tells of all.
func (p *passing) announce(ctx context.Context) error {
	told := false
	for _, f := range p.source.files {
		switch {
		case f.file == nil && f.announced > 0: // until it is confirmed
			if err := p.ch.Send(ctx, numbers(frameDrop, uint64(f.index))); err != nil {
				return err
			}
		case f.file != nil && (p.doubt || f.announced < len(f.places)):
			st, err := fs.StatFile(f.file)
			if err != nil {
				return err
			}
			if err := p.ch.Send(ctx, encodeFile(f.index, st.Size, f.places)); err != nil {
				return err
			}
			f.announced, told = len(f.places), true
		}
	}
	if !told {
		return nil
	}
	return p.ask(ctx)
}

// ask has the peer answer, when it has done all that was sent before, which files it can't have.
func (p *passing) ask(ctx context.Context) error {
	if err := p.ch.Send(ctx, numbers(frameListed)); err != nil {
		return err
	}
	answer, err := p.ch.Recv(ctx, nil)
	if err != nil {
		return err
	}
	if len(answer) == 0 || frameKind(answer[0]) != frameTaken {
		return ErrMalformed
	}
	r := reader{rest: answer[1:]}
	for len(r.rest) > 0 {
		index := r.number(MostFiles - 1)
		if index >= uint64(len(p.source.files)) {
			r.fail("a file that was not announced")
		}
		if r.err == nil {
			p.source.files[index].refused = true
		}
	}
	return r.err
}

// bring makes the peer's file what this one is.
func (p *passing) bring(ctx context.Context, f *file) error {
	st, err := fs.StatFile(f.file)
	if err != nil {
		return err
	}
	f.scanned, f.before = p.began, st
	f.digests.begin()
	p.stats.Files++
	if err := p.content(ctx, f, st.Size); err != nil {
		return err
	}
	err = f.digests.rest(func(off int64) error {
		return p.send(ctx, numbers(frameHole, uint64(f.index), uint64(off), blockSize), nil)
	})
	if err != nil {
		return err
	}
	a := attributes{size: st.Size, mode: st.Mode, uid: st.UID, gid: st.GID, mtime: st.Mtime}
	if err := p.send(ctx, a.encode(f.index), nil); err != nil {
		return err
	}
	f.brought = true
	return nil
}

// content sends the blocks that have changed.
func (p *passing) content(ctx context.Context, f *file, size int64) error {
	group, ctx := errgroup.WithContext(ctx)
	runs := &runs{file: f, size: size}
	for range p.workers {
		group.Go(func() error {
			buffer := make([]byte, blockSize)
			for ctx.Err() == nil {
				off, n, err := runs.next()
				if err != nil || n == 0 {
					return err
				}
				if err := p.block(ctx, f, off, buffer[:n]); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// runs gives out the blocks of a file that have data, in order.
type runs struct {
	mu       sync.Mutex
	file     *file
	size     int64
	off, end int64
}

// next is one of them; of the last one, what is within the size. What the file has grown by since is not of this pass: the peer
// would cut it off.
func (r *runs) next() (off, n int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off >= r.end && r.off < r.size {
		start, end, err := fs.NextData(r.file.file, r.off, r.size)
		if err != nil {
			return 0, 0, err
		}
		r.off, r.end = start/blockSize*blockSize, end
	}
	if r.off >= r.size {
		return 0, 0, nil
	}
	off = r.off
	r.off += blockSize
	return off, min(blockSize, r.size-off), nil
}

// block sends one, if the peer's is another.
func (p *passing) block(ctx context.Context, f *file, off int64, buffer []byte) error {
	n, err := f.file.ReadAt(buffer, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	data := buffer[:n]
	zero := isZero(data)
	sum := xxh3.Hash128(data)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Read += int64(n)
	if !zero { // else it is a hole there
		if send, had := f.digests.see(off, sum); send {
			return p.replace(ctx, f, off, data, had)
		}
	}
	if time.Since(p.last) > time.Second {
		return p.sendLocked(ctx, numbers(frameStill), nil)
	}
	return nil
}

// replace sends a block's pages that are not all zeros, so that holes stay holes. had: the peer may have something there.
func (p *passing) replace(ctx context.Context, f *file, off int64, data []byte, had bool) error {
	pages := filled(data)
	if had && (len(pages) != 1 || len(pages[0].bytes) < len(data)) {
		if err := p.sendLocked(ctx, numbers(frameHole, uint64(f.index), uint64(off), blockSize), nil); err != nil {
			return err
		}
	}
	for _, run := range pages {
		p.stats.Sent += int64(len(run.bytes))
		if err := p.sendLocked(ctx, numbers(frameData, uint64(f.index), uint64(off+run.off)), run.bytes); err != nil {
			return err
		}
	}
	return nil
}

// run is a part of a block.
type run struct {
	off   int64
	bytes []byte
}

// filled are the runs of pages that have anything but zeros.
func filled(data []byte) []run {
	const page = 4096
	var all []run
	last := -1 // where the run before ends
	for off := 0; off < len(data); off += page {
		end := min(off+page, len(data))
		switch {
		case isZero(data[off:end]):
		case last == off:
			r := &all[len(all)-1]
			r.bytes, last = data[r.off:end], end
		default:
			all, last = append(all, run{int64(off), data[off:end]}), end
		}
	}
	return all
}

func (p *passing) send(ctx context.Context, head, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sendLocked(ctx, head, data)
}

func (p *passing) sendLocked(ctx context.Context, head, data []byte) error {
	p.last = time.Now()
	return p.ch.Send(ctx, head, data)
}

func isZero(data []byte) bool {
	const word = 64
	var zero [word]byte
	return bytes.Equal(data[:min(word, len(data))], zero[:min(word, len(data))]) && (len(data) <= word || bytes.Equal(data[word:], data[:len(data)-word]))
}
