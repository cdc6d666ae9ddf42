package keeper

import (
	"context"
	"errors"
	"time"

	"github.com/livemigrate/migrate/internal/failpoint"
	"github.com/livemigrate/migrate/internal/monitor"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// monitorPause is how long a keeper that could not become the monitor carries the output on before it tries again.
const monitorPause = 5 * time.Second

// watch ends the move and makes this process, the parent of the received container's init, its monitor, if the container had
// one at the source. Otherwise init's next parent is whoever reaps orphans here, as with any detached container.
func (h *host) watch(ctx context.Context) error {
	p := h.place
	if p.stdio == nil || p.running == nil {
		h.finish(ctx)
		return p.lock.Close()
	}
	h.carry(ctx)
	h.finish(ctx)
	_ = failpoint.Hit(ctx, failpoint.PeerMonitor)
	for given := false; ; {
		err := h.become(&given)
		if !given { // whoever asks for the container is not to wait for its monitor
			given = true
			err = errors.Join(err, p.lock.Close())
		}
		// With this process its standard streams would end, and with them maybe the program.
		h.carry(ctx)
		if p.ends(monitorPause) {
			return errors.Join(err, h.stopCarrier())
		}
		h.log.Error("the container has no monitor yet; its output is taken, and it is tried again", "error", err)
	}
}

// ends tells whether the container's init, a child of this process, ends in that time.
func (p *place) ends(within time.Duration) bool {
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if exit, err := process.ChildExit(p.running.InitPid()); err != nil || exit != process.Lives {
			break
		}
		if time.Since(begun) > within {
			return false
		}
	}
	if p.carrier != nil {
		select {
		case <-p.carrier.Done():
		case <-time.After(within): // others of its processes write on
		}
	}
	return true
}

func (h *host) stopCarrier() (err error) {
	p := h.place
	if p.carrier != nil {
		p.offset, p.unlogged, err = p.carrier.Stop()
		p.carrier = nil
	}
	return err
}

// become does not return, unless it fails: given says that the container's id was given up on the way.
func (h *host) become(given *bool) error {
	p := h.place
	if err := h.stopCarrier(); err != nil {
		h.log.Warn("end the log before the monitor's", "error", err)
	}
	c := p.monitor()
	c.Listening = func() {
		if *given {
			return
		}
		*given = true
		if err := p.lock.Close(); err != nil {
			h.log.Warn("give up the container's id", "error", err)
		}
	}
	return monitor.Exec("/proc/self/exe", []string{"monitor"}, c, p.stdio)
}

// monitor is what the container's monitor is told.
func (p *place) monitor() *monitor.Config {
	return &monitor.Config{
		ID:       p.running.ID(),
		StateDir: p.running.StateDir(),
		LogFile:  p.identity.LogFile,
		Named:    true,
		LogLimit: p.logLimit(),
		Terminal: p.terminal(),
		InitPid:  p.running.InitPid(),
		Offset:   p.offset,
		Lost:     p.unlogged,
		Log:      p.log,
	}
}

func (h *host) carry(ctx context.Context) {
	if err := h.place.carry(ctx); err != nil {
		h.log.Warn("the container's output waits for its monitor", "error", err)
	}
}

// carry takes the container's output until there is a monitor: the end of the move may take seconds, its memory minutes to come.
func (p *place) carry(ctx context.Context) (err error) {
	if p.carrier != nil || p.stdio == nil || p.running == nil {
		return nil
	}
	if _, err := p.stdio.Output(ctx); err != nil {
		return err
	}
	p.carrier, err = monitor.Carry(p.monitor(), p.stdio)
	return err
}

func (h *host) finish(ctx context.Context) {
	if err := h.place.finish(ctx); err != nil {
		h.log.Error("clear up after the move", "error", err)
	}
}
