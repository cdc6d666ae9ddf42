package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/tests/lab"
)

type options struct {
	cycles, atOnce int
	migrate        string
	out            io.Writer
}

// soaked is one soak.
type soaked struct {
	*options
	name string // part of every container's id
	dir  string
	root string
}

// soak prints the table, and returns what has grown as an error.
func soak(ctx context.Context, o *options) (err error) {
	dir, err := os.MkdirTemp("/dev/shm", "soak-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &soaked{options: o, name: filepath.Base(dir), dir: dir, root: filepath.Join(dir, "state")}
	bundle := exec.CommandContext(ctx, filepath.Join(lab.Repo(), "scripts", "bundle"), "busybox", s.bundle(), "true")
	if out, err := bundle.CombinedOutput(); err != nil {
		return fmt.Errorf("lay bundle: %w: %s", err, out)
	}
	if err := os.Mkdir(s.tmp(), 0o700); err != nil {
		return err
	}
	// The first one makes what stays for good: the root of the state, and descriptors of Go's own.
	if err := s.cycle(ctx, s.name+"-first"); err != nil {
		return err
	}
	before, err := s.settled(ctx, nil)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.cycleAll(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := s.settled(ctx, before)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%d cycles of create, start, delete, %d at a time, in %.1f s (%.1f ms each)\n\n",
		o.cycles, o.atOnce, took.Seconds(), took.Seconds()*1000/float64(o.cycles))
	return compare(o.out, before, after)
}

func (s *soaked) bundle() string { return filepath.Join(s.dir, "bundle") }

// tmp is the runtime's /tmp: in the machine's own others are at work.
func (s *soaked) tmp() string { return filepath.Join(s.dir, "tmp") }

func (s *soaked) cycleAll(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(s.atOnce)
	for n := range s.cycles {
		group.Go(func() error { return s.cycle(ctx, fmt.Sprint(s.name, "-", n)) })
	}
	return group.Wait()
}

// cycle is one container's life. On an error the container is deleted all the same.
func (s *soaked) cycle(ctx context.Context, id string) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.run(context.WithoutCancel(ctx), "delete", "--force", id))
		}
	}()
	pidFile := filepath.Join(s.dir, id+".pid")
	if err := s.run(ctx, "create", "--bundle", s.bundle(), "--pid-file", pidFile, id); err != nil {
		return err
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	if err := s.run(ctx, "start", id); err != nil {
		return err
	}
	if err := ended(ctx, string(pid)); err != nil {
		return err
	}
	return errors.Join(s.run(ctx, "delete", id), os.Remove(pidFile))
}

func (s *soaked) run(ctx context.Context, args ...string) error {
	said, err := os.CreateTemp(s.dir, "stderr-") // not a pipe: the container would keep it open
	if err != nil {
		return err
	}
	defer said.Close()
	defer os.Remove(said.Name())
	cmd := exec.CommandContext(ctx, s.migrate, append([]string{"--root", s.root}, args...)...)
	cmd.Stderr, cmd.Env = said, append(os.Environ(), "TMPDIR="+s.tmp())
	if err := cmd.Run(); err != nil {
		words, _ := os.ReadFile(said.Name())
		return fmt.Errorf("migrate %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(words))
	}
	return nil
}

// ended waits for the end of a process that is no child of ours.
func ended(ctx context.Context, pid string) error {
	for ctx.Err() == nil {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/stat")
		if errors.Is(err, fs.ErrNotExist) || bytes.Contains(stat, []byte(") Z ")) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}
