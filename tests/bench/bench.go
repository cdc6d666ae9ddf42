package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/livemigrate/migrate/tests/bench/figures"
	"github.com/livemigrate/migrate/tests/lab"
)

// bench runs the rows that were asked for, one after the other; within a row the tools take turns.
func bench(ctx context.Context, o *options) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	warmth, err := startWarmth(ctx, self)
	if err != nil {
		return err
	}
	defer warmth.close()
	theatre := &theatre{self: self, link: o.link, warmth: warmth, stages: map[string]*stage{}}
	defer func() { err = errors.Join(err, theatre.close(context.WithoutCancel(ctx))) }()
	results := &report{Link: o.link, Shrink: o.shrink}
	if o.wants("ceilings") || o.wants("startup") {
		if err := measureOnce(ctx, theatre, o, results); err != nil {
			return err
		}
	}
	for _, r := range rowsOf(o.shrink) {
		if !o.wants(r.name) {
			continue
		}
		result, err := runRow(ctx, theatre, &r, o.runs)
		if err != nil {
			return err
		}
		results.Rows = append(results.Rows, result)
		if err := figures.WriteReport(reportFile, results); err != nil { // what was measured survives an interrupt
			return err
		}
	}
	results.print(os.Stdout)
	return results.verdict()
}

// measureOnce is what has no rows: the links alone, and containers that end at once.
func measureOnce(ctx context.Context, t *theatre, o *options, results *report) error {
	s, err := t.stage(ctx, "")
	if err != nil {
		return err
	}
	if o.wants("ceilings") {
		if results.Ceilings, err = measureCeilings(ctx, s); err != nil {
			return err
		}
	}
	if o.wants("startup") && o.startups > 0 {
		results.Startup, err = measureStartup(ctx, s, o.startups)
	}
	return err
}

// runRow runs its contenders in turns. One that fails is reported and the others go on: its row is missed.
func runRow(ctx context.Context, t *theatre, r *row, runs int) (*rowResult, error) {
	result := &rowResult{Name: r.name, Title: r.title, Absent: r.absent, Samples: map[string][]*sample{}, row: r}
	if r.absent != "" {
		return result, nil
	}
	if runs == 0 {
		runs = max(r.runs, defaultRuns)
	}
	for n := range runs {
		for _, c := range r.contenders {
			fmt.Fprintf(os.Stderr, "-- %s, run %d of %d: %s\n", r.name, n+1, runs, c.name)
			measured, err := runOnce(ctx, t, r.rate, &c)
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case err != nil:
				fmt.Fprintln(os.Stderr, "   failed:", err)
				result.Failures = append(result.Failures, fmt.Sprintf("%s: %v", c.name, err))
			default:
				fmt.Fprintf(os.Stderr, "   %s\n", words(measured.Values))
				result.Samples[c.name] = append(result.Samples[c.name], measured)
			}
		}
	}
	return result, nil
}

func runOnce(ctx context.Context, t *theatre, rate string, c *contender) (*sample, error) {
	limited, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("it did not end within %v", runLimit))
	defer cancel()
	s, err := t.stage(limited, rate)
	if err != nil {
		return nil, err
	}
	measured, err := c.run(limited, s)
	if err != nil {
		if limited.Err() != nil {
			err = errors.Join(context.Cause(limited), err)
		}
		// Whatever it has left behind must not be in the next one's way.
		err = errors.Join(err, t.drop(context.WithoutCancel(ctx), rate))
	}
	return measured, err
}

// theatre has a stage for each rate that a row asks for.
type theatre struct {
	self   string
	link   string
	warmth *warmth
	stages map[string]*stage
}

// stage is two hosts and a client, with the peer's side of migrate listening.
type stage struct {
	lab    *lab.Lab
	self   string // this program, to be run on the hosts
	link   string // what migrate moves over
	warmth *warmth
	stop   func()
}

// stage is the one of the rate, made if need be.
func (t *theatre) stage(ctx context.Context, rate string) (*stage, error) {
	if s := t.stages[rate]; s != nil {
		return s, nil
	}
	// The hosts live until they are dropped, which is longer than a run that comes to use them.
	ctx = context.WithoutCancel(ctx)
	l, err := lab.Up(ctx, labName(rate), &lab.Options{Rate: rate})
	if err != nil {
		return nil, err
	}
	s := &stage{lab: l, self: t.self, link: t.link, warmth: t.warmth}
	if s.stop, err = prepareMigrate(ctx, s); err != nil {
		return nil, errors.Join(err, lab.Down(ctx, l.Name))
	}
	t.stages[rate] = s
	return s, nil
}

// labName is of this process alone: two benches at once would end each other's hosts.
func labName(rate string) string { return fmt.Sprintf("bench%d%s", os.Getpid(), rate) }

// drop ends everything on the stage, and removes it.
func (t *theatre) drop(ctx context.Context, rate string) error {
	s := t.stages[rate]
	if s == nil {
		return nil
	}
	delete(t.stages, rate)
	s.stop()
	return lab.Down(ctx, s.lab.Name)
}

func (t *theatre) close(ctx context.Context) error {
	var errs []error
	for rate := range t.stages {
		errs = append(errs, t.drop(ctx, rate))
	}
	return errors.Join(errs...)
}
