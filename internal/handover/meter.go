package handover

import (
	"context"
	"sync/atomic"

	"github.com/livemigrate/migrate/internal/report"
)

// meter counts what is sent of an estimated total, and shows it as progress. Several channels may share one.
type meter struct {
	sent   atomic.Uint64
	total  uint64
	record *report.Recorder
}

func (m *meter) add(bytes int) {
	sent := m.sent.Add(uint64(bytes))
	m.record.Progress(sent, max(m.total, sent))
}

// metered is a channel whose sent bytes are counted.
type metered struct {
	Channel
	meter *meter
}

func meterAll(channels []Channel, m *meter) []Channel {
	var all []Channel
	for _, ch := range channels {
		all = append(all, metered{ch, m})
	}
	return all
}

func (c metered) Send(ctx context.Context, parts ...[]byte) error {
	if err := c.Channel.Send(ctx, parts...); err != nil {
		return err
	}
	bytes := 0
	for _, part := range parts {
		bytes += len(part)
	}
	c.meter.add(bytes)
	return nil
}
