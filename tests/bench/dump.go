package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/livemigrate/migrate/checkpoint"
	"github.com/livemigrate/migrate/runtime"
	"github.com/livemigrate/migrate/tests/bench/figures"
	"github.com/livemigrate/migrate/tests/lab"
)

// dumps are the ways in which CRIU leaves private memory out: skipping it, which is ours, and taking it into pipes. The same
// container with next to no memory shows what the stop takes without.
func dumps(l load) []contender {
	return []contender{
		{ours, measureDump(l, checkpoint.WaySkip)},
		{"plain lazy", measureDump(l, checkpoint.WayLazy)},
		{"migrate, 1 MB", measureDump(load{mb: 1}, checkpoint.WaySkip)},
	}
}

// measureDump has a container dumped, and rolled back, on its host.
func measureDump(l load, way checkpoint.Way) func(context.Context, *stage) (*sample, error) {
	return func(ctx context.Context, s *stage) (*sample, error) {
		m := &migrateMover{stage: s, load: l}
		defer cleanUp(ctx, func(ctx context.Context) {
			m.clean(ctx)
			_, _ = s.lab.A.Run(ctx, "rm", "-rf", "/run/images")
		})
		client, err := s.startWatched(ctx, m.start, l)
		if err != nil {
			return nil, err
		}
		client.kill()
		if err := s.warmth.release(l.whole() + 512); err != nil { // for CRIU's pipes
			return nil, err
		}
		out, err := s.lab.A.Run(ctx, s.self, "dump", string(way))
		if err != nil {
			return nil, err
		}
		ms, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
		return &sample{Values: map[string]float64{stopped: ms}}, err
	}
}

// dump runs on the host itself. It prints how long everything stands still until CRIU says post-dump, in ms.
func dump(ctx context.Context, args []string) error {
	rt, err := runtime.Open(nil)
	if err != nil {
		return err
	}
	c, err := rt.Load("bench")
	if err != nil {
		return err
	}
	var frozen time.Time
	held, err := checkpoint.Begin(ctx, c, &checkpoint.Options{
		ImagesDir: "/run/images", CRIU: lab.CRIU(), LeaveMemory: true, Way: checkpoint.Way(args[0]),
		NoManifest: true, LogLevel: 2,
		BeforeFreeze: func(context.Context) error {
			frozen = time.Now()
			return nil
		},
	})
	if err != nil {
		return err
	}
	ms := figures.MS(time.Since(frozen))
	if err := held.Rollback(ctx); err != nil {
		return err
	}
	if string(held.Way()) != args[0] {
		return errors.New("the dump went another way: " + string(held.Way()))
	}
	fmt.Fprintf(os.Stdout, "%.2f\n", ms)
	return nil
}
