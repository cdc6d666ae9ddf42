package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// rollback is what has to be undone when a later step fails, in reverse order.
type rollback struct {
	steps []undoStep
}

type undoStep struct {
	name string
	undo func(ctx context.Context) error
}

func (r *rollback) add(name string, undo func(ctx context.Context) error) {
	r.steps = append(r.steps, undoStep{name, undo})
}

// run undoes everything, whatever fails on the way, and forgets it. A cancelled ctx does not stop it: what was made has
// to go.
func (r *rollback) run(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, step := range slices.Backward(r.steps) {
		if err := step.undo(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.name, err))
		}
	}
	r.steps = nil
	return errors.Join(errs...)
}
