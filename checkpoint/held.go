package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
)

// errRollback is the cause that Rollback gives CRIU, so that its answer is not taken for a failure.
var errRollback = errors.New("checkpoint rolled back")

// Held is a container that was dumped and stands still. It must be ended by Commit or by Rollback, once.
type Held struct {
	*dump
}

// Descriptors are where the container's stdio pointed, as in descriptors.json.
func (h *Held) Descriptors() []string {
	return h.descriptors
}

// Way is what became of private anonymous memory.
func (h *Held) Way() Way {
	return h.way
}

// Left is the memory that is in no file: with WaySkip and WayLazy private anonymous pages, and none with WayFull. Until
// Commit or Rollback it can be read, by process_vm_readv(2) or from /proc/PID/mem.
func (h *Held) Left() []Left {
	return h.left
}

// Fill puts what is Left into the images: they are then what a dump without LeaveMemory makes.
func (h *Held) Fill() error {
	pids := map[int]int{}
	for _, l := range h.left {
		pids[l.VPid] = l.Pid
	}
	return h.fill(func(vpid int) (image.Memory, error) { return openMemory(pids, vpid) })
}

// fill does so from copies, for which nobody has to stand still.
func (h *Held) fill(open func(vpid int) (image.Memory, error)) error {
	if len(h.left) == 0 {
		return nil
	}
	if err := h.options.fill(open); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", h.container.ID(), err)
	}
	h.left = nil
	return nil
}

// CRIUPid is the process that holds the tasks. Should it die, they still stand: end with Rollback.
func (h *Held) CRIUPid() int {
	return h.client.Pid()
}

// Commit ends the container: when it returns nil no process of it is left, and its link is still off the bridge. With
// LeaveRunning it runs on instead, back on its bridge. After an error of a Commit that kills, the container is as dead as
// it could be made; nothing of it runs.
func (h *Held) Commit(ctx context.Context) error {
	var err error
	switch {
	case h.options.LeaveRunning && h.way == WayLazy:
		return h.Rollback(ctx) // to CRIU it is the same
	case h.options.LeaveRunning:
		err = errors.Join(h.finish(ctx), h.release(context.WithoutCancel(ctx)))
	case h.options.LazyPages:
		// The tasks stay traced, so that they can be thawed: CRIU kills them when their memory is fetched.
		err = errors.Join(h.container.Thaw(ctx), h.finish(ctx), h.closeClient())
	default:
		err = h.kill(ctx)
	}
	if err != nil {
		return fmt.Errorf("commit checkpoint of container %s: %w", h.container.ID(), err)
	}
	return nil
}

// kill ends every task before CRIU may let go of one. On cgroup v1 the signals wait until the thaw; a task that a signal
// waits for executes no further instruction of its program.
func (h *Held) kill(ctx context.Context) error {
	pids, err := h.container.Processes()
	for _, pid := range pids {
		if killErr := syscall.Kill(pid, syscall.SIGKILL); killErr != nil && !errors.Is(killErr, syscall.ESRCH) {
			err = errors.Join(err, os.NewSyscallError("kill", killErr))
		}
	}
	if err != nil {
		return errors.Join(err, h.closeClient()) // still frozen
	}
	ctx = context.WithoutCancel(ctx) // there is no way back
	err = h.container.Thaw(ctx)
	if finishErr := h.finish(ctx); finishErr != nil {
		// CRIU was killed: the tasks are dead all the same, and without their tracer their parents reap them.
		h.options.log().Warn("criu ended badly after the checkpoint was complete", "error", finishErr)
	}
	return errors.Join(err, h.closeClient())
}

// finish answers post-dump with yes and follows CRIU to its end.
func (h *Held) finish(ctx context.Context) error {
	err := h.call.Accept(ctx)
	for err == nil {
		var n *criu.Notification
		if n, err = h.call.Next(ctx); err == nil {
			err = errors.Join(h.notified(ctx, n.Script), h.call.Accept(ctx))
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Rollback lets the container run on as if there had been no checkpoint: CRIU lets the tasks go, or, should it be dead,
// what it left in them is undone (see Recover); the link is back on its bridge. The images stay, and mean nothing.
func (h *Held) Rollback(ctx context.Context) error {
	err := h.call.Refuse(ctx, errRollback)
	for err == nil {
		var n *criu.Notification
		if n, err = h.call.Next(ctx); err == nil {
			err = errors.Join(h.notified(ctx, n.Script), h.call.Accept(ctx))
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errRollback) || h.client.Killed() {
		err = nil // in the last case release says whether it could be made good
	}
	if err := errors.Join(err, h.release(context.WithoutCancel(ctx))); err != nil {
		return fmt.Errorf("roll back checkpoint of container %s: %w", h.container.ID(), err)
	}
	return nil
}
