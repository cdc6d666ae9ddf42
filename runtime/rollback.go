package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// rollback is what has to be undone when a later step fails, in reverse order, and what has to be done however it ends.
// It ends with run or with finish.
type rollback struct {
	steps []undoStep
}

type undoStep struct {
	name   string
	always bool // also when nothing failed
	undo   func(ctx context.Context) error
}

func (r *rollback) add(name string, undo func(ctx context.Context) error) {
	r.steps = append(r.steps, undoStep{name: name, undo: undo})
}

// addClose closes what the steps that are added later may need to be undone.
func (r *rollback) addClose(name string, c io.Closer) {
	r.steps = append(r.steps, undoStep{"close " + name, true, func(context.Context) error { return c.Close() }})
}

// finish is for when nothing failed: nothing is undone any more, only closed.
func (r *rollback) finish(ctx context.Context) error {
	r.steps = slices.DeleteFunc(r.steps, func(s undoStep) bool { return !s.always })
	return r.run(ctx)
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
