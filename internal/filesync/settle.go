package filesync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"
)

const (
	unstableRounds = 3
	needRounds     = 5 // a need can reveal another (the leader of a hard link), not more
)

// settle ends the pass: whatever the peer still needs is sent whole, then it confirms. In the frozen window what changed
// while it was read is read again first. While the container runs, the tree can change faster than the peer can ask; what
// it lacks at last is left to the next pass.
func (p *pass) settle() error {
	var needs []string
	for round := range needRounds {
		if err := p.calm(); err != nil {
			return err
		}
		waive := !p.frozen && round == needRounds-1
		if waive {
			for _, path := range needs {
				p.unstable(path)
			}
		}
		if err := p.send.end(waive); err != nil {
			return err
		}
		p.ended = true
		list, done, err := p.reply()
		p.ended = err != nil
		if done || err != nil {
			return err
		}
		needs = list
		if err := p.again(needs, true); err != nil {
			return err
		}
	}
	return errors.New("the peer keeps asking for the same files")
}

// calm reads again what changed while it was read, in the frozen window.
func (p *pass) calm() error {
	for round := 0; p.frozen && len(p.s.pending) > 0; round++ {
		if round == unstableRounds {
			file := filepath.Join(p.s.path, firstKey(p.s.pending))
			return fmt.Errorf("%w: something outside the container writes to %s; end that (fuser -v names it), and try again", ErrUnstable, file)
		}
		list := slices.Collect(maps.Keys(p.s.pending))
		clear(p.s.pending)
		if err := p.again(list, false); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) reply() (needs []string, done bool, err error) {
	for {
		frame, err := p.ch.Recv(p.ctx, nil)
		if err != nil {
			return nil, false, fmt.Errorf("receive answer: %w", err)
		}
		kind, body, err := splitFrame(frame)
		if err != nil {
			return nil, false, err
		}
		switch kind {
		case frameNeed:
			list, err := decodeNeed(body)
			return append(needs, list...), false, err
		case frameDone:
			o, err := decodeDone(body)
			p.stats.Removed += o.Removed
			p.stats.Dropped += o.Dropped
			return nil, true, err
		case frameFail:
			return nil, false, decodeFail(body)
		default:
			return nil, false, refuse("frame %s instead of an answer", kind)
		}
	}
}

// abandon tells the peer that the pass is given up, and reads on to its last word, so that the channel can be used again.
// Each side says one last word; after end, the peer's comes next.
func (p *pass) abandon(cause error) error {
	var failed *PeerError
	spoken := errors.As(cause, &failed)
	if spoken && p.ended {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), 2*time.Second)
	defer cancel()
	if !p.ended {
		if err := p.ch.Send(ctx, encodeFail(cause)); err != nil || spoken {
			return cause
		}
	}
	for {
		frame, err := p.ch.Recv(ctx, nil)
		if err != nil {
			return cause
		}
		kind, body, err := splitFrame(frame)
		switch {
		case err != nil, kind == frameDone:
			return cause
		case kind == frameNeed && p.ended:
			p.ended = false
			if err := p.ch.Send(ctx, encodeFail(cause)); err != nil {
				return cause
			}
		case kind == frameFail:
			// The peer's own failure says something else than what it was told.
			if err := decodeFail(body); errors.As(err, &failed) && failed.code != codeCanceled {
				return errors.Join(err, cause)
			}
			return cause
		}
	}
}
