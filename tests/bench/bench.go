package main

import (
	"context"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/tests/bench/figures"
	"github.com/livemigrate/migrate/tests/lab"
)

// setting is what the runs share.
type setting struct {
	lab    *lab.Lab
	self   string // this program, to be run on the hosts
	warmth *warmth
	rate   int
}

func bench(ctx context.Context, o *options) (err error) {
	const name = "bench"
	l, err := lab.Up(ctx, name, nil)
	if err != nil {
		return err
	}
	defer func() {
		if downErr := lab.Down(context.WithoutCancel(ctx), name); err == nil {
			err = downErr
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s := &setting{lab: l, self: self, rate: o.rate}
	results := &report{}
	if results.Ceilings, err = measureCeilings(ctx, s); err != nil {
		return err
	}
	if o.startups > 0 {
		if results.Startup, err = measureStartup(ctx, s, o.startups); err != nil {
			return err
		}
	}
	if err := measureMoves(ctx, s, o, results); err != nil {
		return err
	}
	if err := figures.WriteReport(reportFile, results); err != nil {
		return err
	}
	results.print(os.Stdout)
	return results.verdict()
}

// measureMoves runs every cell, tools in turns.
func measureMoves(ctx context.Context, s *setting, o *options, results *report) (err error) {
	if s.warmth, err = startWarmth(ctx, s.self); err != nil {
		return err
	}
	defer s.warmth.close()
	stop, err := prepareMigrate(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	for _, size := range o.sizes {
		for n := range o.runs {
			for _, tool := range append([]string{"runc"}, o.links...) {
				fmt.Fprintf(os.Stderr, "-- %d MB, run %d of %d: %s\n", size, n+1, o.runs, tool)
				measured, err := measureMove(ctx, s, tool, size)
				if err != nil {
					return fmt.Errorf("move %d MB by %s: %w", size, tool, err)
				}
				results.add(tool, size, measured)
			}
		}
	}
	return nil
}

// measuredMove is one run.
type measuredMove struct {
	GapMS   float64            `json:"client_gap_ms"`
	TotalMS float64            `json:"total_ms"`
	Phases  map[string]float64 `json:"phases"` // ms
	RSSAnon map[string]int     `json:"rss_anon_kb,omitempty"`
}

// measureMove fills a container, moves it, and asks the client how long it was away.
func measureMove(ctx context.Context, s *setting, tool string, size int) (*measuredMove, error) {
	// The container, images on both hosts, the restored container, and room for the rest.
	if err := s.warmth.hold(4*size + 512); err != nil {
		return nil, err
	}
	if err := s.warmth.release(size + 64); err != nil {
		return nil, err
	}
	var mover mover = &runcMover{s}
	if tool != "runc" {
		mover = &migrateMover{setting: s, link: tool}
	}
	addresses, err := mover.start(ctx, size)
	defer mover.clean(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	client, err := startAsker(ctx, s, addresses)
	if err != nil {
		return nil, err
	}
	defer client.kill()
	if err := client.answered(ctx); err != nil {
		return nil, err
	}
	if err := s.warmth.release(3*size + 512); err != nil {
		return nil, err
	}
	measured, window, err := mover.move(ctx)
	if err != nil {
		return nil, err
	}
	measured.GapMS, err = client.longestSilence(window)
	if err != nil {
		return nil, err
	}
	return measured, mover.check(ctx)
}

// mover is a tool under test.
type mover interface {
	// start runs the container on host a; it can be asked at these addresses, before or after the move.
	start(ctx context.Context, size int) (addresses []string, err error)
	move(ctx context.Context) (*measuredMove, window, error)
	// check verifies the moved container's memory, on host b.
	check(ctx context.Context) error
	clean(ctx context.Context)
}
