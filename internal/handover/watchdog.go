package handover

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// stallLimit: a peer whose link lives, but whose disk or process hangs, must not keep the service down. It is how long no frame may move inside the freeze. Larger than any pause of a disk that works.
const stallLimit = 20 * time.Second

// watchdog notices that nothing moves on the channels it watches.
type watchdog struct {
	frames atomic.Uint64
}

// Run watches until ctx ends, and calls alarm when nothing has moved for stallLimit.
func (w *watchdog) Run(ctx context.Context, alarm context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	seen, since := w.frames.Load(), time.Now()
	for {
		select {
		case now := <-tick.C:
			if frames := w.frames.Load(); frames != seen {
				seen, since = frames, now
			} else if now.Sub(since) >= stallLimit {
				alarm(fmt.Errorf("%w: nothing was taken for %v", errStalled, stallLimit))
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Watch returns a channel whose frames count.
func (w *watchdog) Watch(ch Channel) Channel { return watched{ch, w} }

func (w *watchdog) watchAll(channels []Channel) []Channel {
	var all []Channel
	for _, ch := range channels {
		all = append(all, w.Watch(ch))
	}
	return all
}

type watched struct {
	Channel
	watchdog *watchdog
}

func (c watched) Send(ctx context.Context, parts ...[]byte) error {
	err := c.Channel.Send(ctx, parts...)
	c.watchdog.frames.Add(1)
	return err
}

func (c watched) Recv(ctx context.Context, buf []byte) ([]byte, error) {
	frame, err := c.Channel.Recv(ctx, buf)
	c.watchdog.frames.Add(1)
	return frame, err
}
