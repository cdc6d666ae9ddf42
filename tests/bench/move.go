package main

import (
	"context"
	"maps"
	"strconv"
	"time"
)

// load is what the container has in its memory, and does with it.
type load struct {
	mb     int
	rate   int  // random pages rewritten a second
	shared bool // between processes, instead of private
	half   bool // zeros in the second half of each line of the cache
	forks  int  // processes that share the memory until they write, besides the first
}

// args are those of tests/workload.
func (l load) args() []string {
	args := []string{"memory", "--rate", strconv.Itoa(l.rate), "--forks", strconv.Itoa(l.forks)}
	if l.shared {
		args = append(args, "--shared")
	}
	if l.half {
		args = append(args, "--half")
	}
	return append(args, strconv.Itoa(l.mb))
}

// whole is the memory of all its processes, in MB, once nothing is shared any more.
func (l load) whole() int { return l.mb * (1 + l.forks) }

// mover is a tool under test.
type mover interface {
	// start runs the container on host a; it can be asked at these addresses, before or after the move.
	start(ctx context.Context) (addresses []string, err error)
	move(ctx context.Context) (*moved, error)
	// check verifies the moved container's memory, on host b.
	check(ctx context.Context) error
	clean(ctx context.Context)
}

// moved is a move that has ended well.
type moved struct {
	sample
	window
	rounds window // in which memory went while the container ran; zero without
}

// cleanLimit bounds what is done after a run, also after one that failed.
const cleanLimit = time.Minute

// before is how long a container is watched before its move, for how fast it is by itself.
const before = time.Second

// measureMove fills a container, moves it, and asks the client how long it was away.
func measureMove(ctx context.Context, s *stage, m mover, l load) (*sample, error) {
	client, err := s.startWatched(ctx, m.start, l)
	defer cleanUp(ctx, m.clean)
	if err != nil {
		return nil, err
	}
	defer client.kill()
	if err := pause(ctx, before); err != nil {
		return nil, err
	}
	// Images on both hosts, the restored container, and room for the rest.
	if err := s.warmth.release(3*l.whole() + 512); err != nil {
		return nil, err
	}
	result, err := m.move(ctx)
	if err != nil {
		return nil, err
	}
	answers, err := client.end(result.window)
	if err != nil {
		return nil, err
	}
	maps.Copy(result.Values, answers.silences(result.window))
	if lost, ok := answers.slowDown(result.from, result.rounds); ok {
		result.Values[slow] = lost
	}
	return &result.sample, m.check(ctx)
}

// startWatched warms memory, starts a container in it and a client that gets answers from it.
func (s *stage) startWatched(ctx context.Context, start func(context.Context) ([]string, error), l load) (*asker, error) {
	if err := s.warmth.hold(4*l.whole() + 512); err != nil {
		return nil, err
	}
	if err := s.warmth.release(l.mb + 64); err != nil {
		return nil, err
	}
	addresses, err := start(ctx)
	if err != nil {
		return nil, err
	}
	client, err := startAsker(ctx, s, addresses)
	if err != nil {
		return nil, err
	}
	if err := client.answered(ctx); err != nil {
		client.kill()
		return nil, err
	}
	return client, nil
}

// cleanUp is for defer: it runs whatever became of the run.
func cleanUp(ctx context.Context, clean func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	clean(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
