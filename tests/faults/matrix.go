package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// options say which cells.
type options struct {
	modes, steps, faults, cells string
	short                       bool
	name                        string
	programs                    string
	doc                         string
	keep                        bool
	out                         io.Writer
}

// errWrong: some cells are. The table tells which.
var errWrong = errors.New("not as promised")

// table is what came of the cells.
type table struct {
	modes []string
	cells []result
	took  time.Duration
}

type result struct {
	mode    string
	step    step
	fault   fault
	verdict verdict
}

// matrix runs the cells that are asked for.
func matrix(ctx context.Context, o *options) (_ *table, err error) {
	cells, err := o.list()
	if err != nil {
		return nil, err
	}
	programs := o.programs
	if programs == "" {
		programs, err = build(ctx)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(programs)) }()
	}
	t := &table{modes: strings.Split(o.modes, ",")}
	began := time.Now()
	var w *world
	defer func() {
		t.took = time.Since(began)
		if w != nil && (!o.keep || !errors.Is(err, errWrong)) {
			err = errors.Join(err, w.close(ctx))
		}
	}()
	bad := 0
	for _, c := range cells {
		if ctx.Err() != nil {
			return t, ctx.Err()
		}
		if w == nil {
			if w, err = newWorld(ctx, o.name, programs); err != nil {
				return t, err
			}
		}
		c.world = w
		v, err := c.run(ctx)
		if ctx.Err() != nil { // that cell says nothing
			return t, ctx.Err()
		}
		if err != nil {
			v = wrongf("the test itself: %v", err)
		}
		t.cells = append(t.cells, result{c.mode, c.step, c.fault, *v})
		fmt.Fprintf(o.out, "%-9s %-16s %-12s %5.1f s  %s\n", c.mode, c.step.point, c.fault.name, v.took.Seconds(), v)
		if v.kind == wrong {
			bad++
			if o.keep {
				break
			}
			if err := w.close(ctx); err != nil { // the next cell has nothing to do with this one
				return t, err
			}
			w = nil
		}
	}
	if bad > 0 {
		return t, fmt.Errorf("%d of %d cells: %w", bad, len(t.cells), errWrong)
	}
	return t, nil
}

// list is the cells that were asked for.
func (o *options) list() ([]*cell, error) {
	wantStep, err := regexp.Compile(o.steps)
	if err != nil {
		return nil, err
	}
	wantFault, err := regexp.Compile(o.faults)
	if err != nil {
		return nil, err
	}
	wantCell, err := regexp.Compile(o.cells)
	if err != nil {
		return nil, err
	}
	var cells []*cell
	for _, mode := range strings.Split(o.modes, ",") {
		for _, s := range steps {
			for _, f := range faults {
				if s.in(mode) && wantStep.MatchString(string(s.point)) && wantFault.MatchString(f.name) &&
					wantCell.MatchString(string(s.point)+" "+f.name) && (!o.short || s.short == f.name) {
					cells = append(cells, &cell{mode: mode, step: s, fault: f})
				}
			}
		}
	}
	return cells, nil
}

// build makes the program with failpoints.
func build(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "netgo,osusergo,failpoint",
		"-ldflags", "-s -w -extldflags -static", "-o", filepath.Join(dir, "migrate"), "./cmd/migrate")
	cmd.Dir = lab.Repo()
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build migrate with failpoints: %w: %s", err, text), os.RemoveAll(dir))
	}
	return dir, nil
}
