package handover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// undoLimit bounds each step back: a step that hangs must not keep the next one, the thaw, from happening.
const undoLimit = 20 * time.Second

// rollback is a list of steps back, one for each step forward.
type rollback struct {
	steps []undoStep
}

type undoStep struct {
	name string
	do   func(context.Context) error
}

// Add registers how to undo what has just been done.
func (r *rollback) Add(name string, do func(context.Context) error) {
	r.steps = append(r.steps, undoStep{name, do})
}

// Disarm forgets every step: what was done stays done.
func (r *rollback) Disarm() { r.steps = nil }

// Run takes the steps back in reverse order, all of them, whatever fails. ctx gives values only: a move that was cancelled
// still has to be undone.
func (r *rollback) Run(ctx context.Context, log *slog.Logger) error {
	var failed []error
	for _, step := range slices.Backward(r.steps) {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		log.Debug("undo", "step", step.name)
		if err := step.do(limited); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", step.name, err))
		}
		cancel()
	}
	r.steps = nil
	return errors.Join(failed...)
}
