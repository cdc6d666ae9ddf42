package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// fault is something bad that happens to a move.
type fault struct {
	name  string
	what  string
	ssh   bool                                     // it is one of a move over ssh
	do    func(ctx context.Context, c *cell) error // errNothing: there is nothing here that it could happen to
	lasts time.Duration                            // until
	undo  func(ctx context.Context, c *cell) error // nil: the world does not put it right by itself
}

// errNothing: at this step there is nothing that the fault could happen to.
var errNothing = errors.New("nothing there")

// faults are all there are.
var faults = []fault{
	{name: "cut", what: "connections are reset, and new ones for half a second", do: cut, lasts: 500 * time.Millisecond, undo: restore},
	{name: "hiccup", what: "packets are dropped for half a second", do: unplug, lasts: 500 * time.Millisecond, undo: plug},
	{name: "stalled", what: "packets are dropped until both sides have given each other up", do: unplug, lasts: 5 * time.Second, undo: plug},
	{name: "altered", what: "bytes are altered on the wire", do: alter, lasts: 300 * time.Millisecond, undo: restore},
	{name: "push", what: "kill -9 of push", do: killPush},
	{name: "serve", what: "kill -9 of serve, which is started again", do: killServe, lasts: 200 * time.Millisecond, undo: serveAgain},
	{name: "ssh", what: "kill -9 of ssh", ssh: true, do: killSSH},
	{name: "source", what: "kill -9 of the keeper at the source", do: killKeeper(source)},
	{name: "peer", what: "kill -9 of the keeper at the peer", do: killKeeper(peer)},
	{name: "criu-source", what: "kill -9 of CRIU at the source", do: killCRIU(source)},
	{name: "criu-peer", what: "kill -9 of CRIU at the peer", do: killCRIU(peer)},
	{name: "feeder", what: "kill -9 of the peer's feeder", do: killFeeder},
	{name: "reboot-source", what: "the source's host reboots", do: reboot(source), lasts: 300 * time.Millisecond, undo: bootAgain},
	{name: "reboot", what: "the peer's host reboots", do: reboot(peer), lasts: 300 * time.Millisecond, undo: bootAgain},
	{name: "disk-source", what: "the source's spool is full", do: fillSpool(source), lasts: 700 * time.Millisecond, undo: emptySpool(source)},
	{name: "disk", what: "the peer's spool is full", do: fillSpool(peer), lasts: 700 * time.Millisecond, undo: emptySpool(peer)},
	{name: "memory-source", what: "the source's memory limit is hit", do: limitMemory(source), lasts: 700 * time.Millisecond, undo: unlimitMemory(source)},
	{name: "memory", what: "the peer's memory limit is hit", do: limitMemory(peer), lasts: 700 * time.Millisecond, undo: unlimitMemory(peer)},
	{name: "clock", what: "the clock that journals go by is set back an hour, on both hosts", do: setClocks, lasts: 300 * time.Millisecond, undo: nil},
}

func cut(_ context.Context, c *cell) error {
	c.relay().cut()
	return nil
}

func alter(_ context.Context, c *cell) error {
	c.relay().alter.Store(1)
	return nil
}

func restore(_ context.Context, c *cell) error {
	c.relay().restore()
	return nil
}

func unplug(ctx context.Context, c *cell) error { return c.world.cable(ctx, "down") }

func plug(ctx context.Context, c *cell) error { return c.world.cable(ctx, "up") }

// cable pulls B's cable out of the switch, or plugs it in.
func (w *world) cable(ctx context.Context, state string) error {
	_, err := w.Lan.Run(ctx, "ip", "link", "set", "dev", "b", state)
	return err
}

func killPush(_ context.Context, c *cell) error { return kill(c.push.Cmd.Process.Pid) }

func killServe(_ context.Context, c *cell) error { return kill(c.world.server.Cmd.Process.Pid) }

func serveAgain(ctx context.Context, c *cell) error { return c.world.serve(ctx) }

func killSSH(_ context.Context, c *cell) error { return kill(c.world.A.Named("ssh")...) }

// side picks a host.
type side func(*world) *lab.Host

func source(w *world) *lab.Host { return w.A }

func peer(w *world) *lab.Host { return w.B }

func killKeeper(at side) func(context.Context, *cell) error {
	return func(_ context.Context, c *cell) error { return kill(at(c.world).Keepers()...) }
}

func killCRIU(at side) func(context.Context, *cell) error {
	return func(_ context.Context, c *cell) error { return kill(at(c.world).CRIUs()...) }
}

func killFeeder(_ context.Context, c *cell) error { return kill(c.world.B.Feeders()...) }

func kill(pids ...int) error {
	if len(pids) == 0 {
		return errNothing
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return nil
}
