package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/livemigrate/migrate/tests/lab"
)

// warmUps are rounds before those that count: programs and bundles come from the disk once.
const warmUps = 3

// bundles are what the containers are made of.
type bundles struct {
	short string // ends at once
	long  string // sleeps
}

// setting is what the verbs share.
type setting struct {
	*bundles
	dir     string
	prefix  string // of container ids
	tools   []*tool
	results *report
	made    []container
}

type container struct {
	tool *tool
	id   string
}

func bench(ctx context.Context, o *options) (_ *report, err error) {
	// State is on tmpfs on any host that was set up with care; here /run need not be.
	dir, err := os.MkdirTemp("/dev/shm", "bench-runtime-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tools, err := participants(ctx, o.migrate, dir)
	if err != nil {
		return nil, err
	}
	laid, err := layBundles(ctx, dir)
	if err != nil {
		return nil, err
	}
	s := &setting{bundles: laid, dir: dir, prefix: filepath.Base(dir), tools: tools, results: newReport(o, tools)}
	defer func() { err = errors.Join(err, s.clean(context.WithoutCancel(ctx))) }()
	for _, v := range verbs(s, o) {
		if err := s.measure(ctx, v, o.runs); err != nil {
			return nil, err
		}
	}
	s.results.sumUp()
	return s.results, nil
}

func layBundles(ctx context.Context, dir string) (*bundles, error) {
	b := &bundles{short: filepath.Join(dir, "short"), long: filepath.Join(dir, "long")}
	for path, program := range map[string][]string{b.short: {"true"}, b.long: {"sleep", "100000"}} {
		args := append([]string{"busybox", path}, program...)
		out, err := exec.CommandContext(ctx, filepath.Join(lab.Repo(), "scripts", "bundle"), args...).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("lay bundle: %w: %s", err, out)
		}
	}
	return b, nil
}

// measure runs one verb by every tool in turns.
func (s *setting) measure(ctx context.Context, v verb, runs int) error {
	fmt.Fprintf(os.Stderr, "-- %s, %d times by each\n", v.name, runs)
	if v.prepare != nil {
		if err := v.prepare(ctx); err != nil {
			return fmt.Errorf("prepare %s: %w", v.name, err)
		}
	}
	order := rand.New(rand.NewPCG(1, 1)) // the same in every bench
	for round := range runs + warmUps {
		for _, i := range order.Perm(len(s.tools)) {
			t := s.tools[i]
			costs, err := v.run(ctx, t, s.id(t, fmt.Sprint(v.name, "-", i, "-", round)))
			if err != nil {
				return fmt.Errorf("%s by %s: %w", v.name, t.name, err)
			}
			if round >= warmUps {
				s.results.add(t, costs)
			}
		}
	}
	return nil
}

// id names a container of a tool's root, as nobody else's is named: cgroups share one name space.
func (s *setting) id(t *tool, name string) string {
	return fmt.Sprintf("%s-%s-%s", s.prefix, filepath.Base(t.root), name)
}

// start runs a container that goes on, and remembers it.
func (s *setting) start(ctx context.Context, t *tool, verb, id string) error {
	args := []string{verb, "--bundle", s.long, id}
	if verb == "run" {
		args = []string{verb, "--detach", "--bundle", s.long, id}
	}
	s.made = append(s.made, container{t, id})
	_, err := t.time(ctx, args...)
	return err
}

// clean deletes the containers that are left.
func (s *setting) clean(ctx context.Context) error {
	var errs []error
	for _, c := range s.made {
		if _, err := os.Stat(filepath.Join(c.tool.root, c.id)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		_, err := c.tool.time(ctx, "delete", "--force", c.id)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
