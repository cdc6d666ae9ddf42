package transport

import (
	"log/slog"
	"sync"
	"time"
)

// complaints writes warnings about callers, who must not fill a log with them: so many lines a second, then their number.
type complaints struct {
	log *slog.Logger

	mu     sync.Mutex
	second time.Time
	lines  int
}

const mostComplaints = 10 // in one second

func (c *complaints) warn(text string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.second) >= time.Second {
		if unsaid := c.lines - mostComplaints; unsaid > 0 {
			c.log.Warn("more callers than lines about them", "unsaid", unsaid)
		}
		c.second, c.lines = now, 0
	}
	if c.lines++; c.lines <= mostComplaints {
		c.log.Warn(text, args...)
	}
}
