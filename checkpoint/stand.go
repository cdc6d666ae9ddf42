package checkpoint

import (
	"context"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/sys/socket"
)

// A web server asks its workers over unix connections, one each time, and a question may lie there before its worker has accepted
// the connection. CRIU cannot save that, and gives up. It is over in a moment, so the container then gets that moment.

// Half a second in all: a queue that stands for longer does so because its workers are too few.
const (
	mostStands    = 20
	firstMoment   = time.Millisecond
	momentsGrowth = 5 // to 32 ms
)

// stand freezes the container, once more if it was caught in such a moment. Whatever that comes to, it is frozen in the end.
func (d *dump) stand(ctx context.Context) error {
	for n := range mostStands {
		if err := d.container.Freeze(ctx); err != nil || d.wasPaused || !d.asksUnheard() {
			return err
		}
		if err := d.container.Thaw(ctx); err != nil || !sleep(ctx, firstMoment<<min(n, momentsGrowth)) {
			break // the last freeze says why
		}
	}
	return d.container.Freeze(ctx)
}

// asksUnheard tells whether there is such a question. Of a network that the container has for itself: in another's one it would
// wait for strangers.
func (d *dump) asksUnheard() bool {
	plan := d.container.Plan()
	if !plan.Private(specs.NetworkNamespace) && plan.NamespacePath(specs.NetworkNamespace) == "" {
		return false
	}
	ns, err := netns.OfProcess(d.container.InitPid())
	if err != nil {
		return false // CRIU will say what it is
	}
	defer ns.Close()
	unheard := false
	_ = netns.Do(ns, func() error {
		sockets, err := socket.ListUnix()
		unheard = err == nil && socket.UnreadBeforeAccept(sockets)
		return err
	})
	return unheard
}
