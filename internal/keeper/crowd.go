package keeper

import (
	"fmt"
	"sync"

	"github.com/livemigrate/migrate/transport"
)

// Besides a keeper for each move there are those for questions: how did it end, would it work.
const (
	keepersPerMove = 2
	moreKeepers    = 16
)

// crowd counts the keepers that a router has started and whose sessions are not over.
type crowd struct {
	mu  sync.Mutex
	all int
	of  map[string]int // by the peer that they were started for
}

// enter counts one more, and returns what to call when it is gone. transport.ErrBusy: there are as many as may be. moves is
// how many containers are received at once; one peer has no more than half of the keepers, so that it can keep no other out.
func (c *crowd) enter(peer string, moves int) (leave func(), err error) {
	if moves <= 0 {
		moves = DefaultMoves
	}
	most := keepersPerMove*moves + moreKeepers
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.all >= most:
		return nil, fmt.Errorf("%w: %d sessions are open here, which is the limit", transport.ErrBusy, c.all)
	case c.of[peer] >= most/2:
		return nil, fmt.Errorf("%w: %d sessions of %q are open here, which is the limit for one peer", transport.ErrBusy, most/2, peer)
	}
	if c.of == nil {
		c.of = make(map[string]int)
	}
	c.all++
	c.of[peer]++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all--
		if c.of[peer]--; c.of[peer] == 0 {
			delete(c.of, peer)
		}
	}), nil
}
