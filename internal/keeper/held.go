package keeper

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/image"
)

// held is a dumped container that is marked as moving.
type held struct {
	*checkpoint.Held
	container *container
	images    string
}

// Linked tells that CRIU has linked deleted files to names in the rootfs or a volume.
func (h *held) Linked() (bool, error) {
	linked, err := image.HasLinkRemaps(h.images)
	if err != nil || !linked {
		return linked, err
	}
	return true, h.container.noteLinks(h.images)
}

// Commit ends it: the container runs at the peer.
func (h *held) Commit(ctx context.Context) error {
	h.container.hasMoved(ctx)
	return h.Held.Commit(ctx)
}

// Rollback makes it run on.
func (h *held) Rollback(ctx context.Context) error {
	h.container.restoreOutput()
	err := h.Held.Rollback(ctx)
	h.container.forgetLinks()
	return errors.Join(err, h.container.released())
}

// Destroy removes the container, whose processes may be alive and frozen.
func (c *container) Destroy(ctx context.Context) error {
	c.hasMoved(ctx)
	state := c.State()
	return errors.Join(c.Delete(ctx, true), c.leaveNetwork(ctx, &state))
}

// Stop kills what is left of the container, which stays as one that has ended: --keep.
func (c *container) Stop(ctx context.Context) error {
	c.hasMoved(ctx)
	if err := c.KillAll(ctx); err != nil {
		return err
	}
	state := c.State()
	return errors.Join(c.mark(""), removeIfThere(filepath.Join(c.StateDir(), linksName)), c.leaveNetwork(ctx, &state))
}

// Revive makes a container run on that was left dumped.
func (c *container) Revive(ctx context.Context) error {
	c.restoreOutput()
	if err := c.order.awaitDumper(ctx, c.move); err != nil {
		return errors.Join(err, handover.ErrStillFrozen)
	}
	c.forgetLinks()
	if err := checkpoint.Recover(ctx, c.Container); err != nil {
		return errors.Join(err, handover.ErrStillFrozen)
	}
	return c.released()
}
