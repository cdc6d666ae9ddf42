package keeper

import (
	"context"
	"errors"
	"time"

	"github.com/livemigrate/migrate/runtime"
)

// errStill: there is nothing to slow down.
var errStill = errors.New("it was not seen to use processor time")

// work is what a container used of processor time until a moment.
type work struct {
	at   time.Time
	used time.Duration
}

// watchWork begins to measure how much processor time the container takes by itself. What a move before has left of a brake
// would spoil that.
func (c *container) watchWork() {
	err := c.fullSpeed()
	if err == nil {
		c.work.used, err = c.CPUTime()
		c.work.at = time.Now()
	}
	if err != nil {
		c.work = work{}
		c.log.Info("the container can't be slowed down", "why", err)
	}
}

// Slow leaves the container a part of the processor time that it took until the first call; with 1 all of it.
func (c *container) Slow(_ context.Context, part float64) error {
	if part >= 1 {
		return c.fullSpeed()
	}
	if c.processors == 0 {
		used, err := c.CPUTime()
		switch {
		case err != nil:
			return err
		case c.work.at.IsZero() || used <= c.work.used:
			return errStill
		}
		c.processors = (used - c.work.used).Seconds() / time.Since(c.work.at).Seconds()
	}
	c.log.Info("slow the container down", "part", part, "processors", c.processors)
	return c.Container.Slow(part * c.processors)
}

// fullSpeed undoes Slow, and says so in the state. What the container may take is read anew: "migrate update" may have changed it
// since it was slowed down.
func (c *container) fullSpeed() error {
	if !c.State().Slowed {
		return nil
	}
	if err := c.UpdateState(func(*runtime.State) {}); err != nil {
		return err
	}
	if err := c.FullSpeed(); err != nil {
		return err
	}
	return c.UpdateState(func(s *runtime.State) { s.Slowed, s.ProcessorTime = false, nil })
}
