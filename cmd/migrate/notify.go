package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/livemigrate/migrate/internal/sdnotify"
	"github.com/livemigrate/migrate/runtime"
)

// fromServiceManager tells whether a service manager waits for this program's word.
func fromServiceManager() bool { return os.Getenv(runtime.NotifyEnv) != "" }

// startNotifying starts the container. What its program then tells the service manager goes there, with pid as the
// service's main process; the relay is nil when nobody wants to know.
func startNotifying(ctx context.Context, c *runtime.Container, pid int, log *slog.Logger) (*sdnotify.Relay, error) {
	if !fromServiceManager() || c.NotifySocket() == "" {
		return nil, c.Start(ctx)
	}
	// What can't be started says why, and keeps the socket that its program writes to.
	if status, err := c.Status(); err != nil || status != runtime.Created {
		return nil, errors.Join(err, c.Start(ctx))
	}
	relay, err := sdnotify.Listen(c.NotifySocket(), os.Getenv(runtime.NotifyEnv), log)
	if errors.Is(err, sdnotify.ErrTaken) {
		return nil, fmt.Errorf("%w: %w", runtime.ErrStarted, err)
	}
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, relay.Close())
	}
	relay.Start(pid)
	return relay, nil
}

// startUntilReady is for a program that leaves the container alone: it stays until the service manager knows that the
// container is ready, or the container has ended.
func startUntilReady(ctx context.Context, c *runtime.Container, log *slog.Logger) error {
	relay, err := startNotifying(ctx, c, c.State().InitProcessPid, log)
	if relay == nil {
		return err
	}
	waiting, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	over := errors.New("the container has ended")
	go func() {
		if c.Wait(waiting) == nil {
			ended(over)
		}
	}()
	err = relay.AwaitReady(waiting)
	if context.Cause(waiting) == over { //nolint:errorlint // that very value
		err = nil // why, is for its exit status to say
	}
	if err = errors.Join(err, relay.Close()); err != nil {
		return fmt.Errorf("pass on that the container is ready: %w", err)
	}
	return nil
}
