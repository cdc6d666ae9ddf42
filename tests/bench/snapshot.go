package main

import (
	"context"
	"errors"
	"maps"
	"strings"
)

// saver is a tool that saves a container and makes it again. Where it saves to is its caller's.
type saver interface {
	mover
	save(ctx context.Context, dir string, flags ...string) error
	// makeAgain restores on host b.
	makeAgain(ctx context.Context, dir string) error
}

func newSaver(s *stage, l load, tool string) saver {
	if tool == ours {
		return &migrateMover{stage: s, load: l}
	}
	return &runcMover{stage: s, load: l}
}

func (m *migrateMover) save(ctx context.Context, dir string, flags ...string) error {
	args := append([]string{"migrate", "checkpoint", "--image-path", dir, "--work-path", "/run"}, flags...)
	_, err := m.lab.A.Run(ctx, append(args, "bench")...)
	return err
}

func (m *migrateMover) makeAgain(ctx context.Context, dir string) error {
	return m.lab.B.Start(ctx, "migrate", "restore", "--lazy-pages", "--detach", "--log-file", "/srv/migrate.out",
		"--image-path", dir, "--work-path", "/run", "--bundle", "/srv/bundles/migrate", "bench")
}

func (m *runcMover) save(ctx context.Context, dir string, flags ...string) error {
	args := append(runc("checkpoint", "--image-path", dir, "--work-path", "/run"), flags...)
	_, err := m.lab.A.Run(ctx, append(args, "runc")...)
	return err
}

func (m *runcMover) makeAgain(ctx context.Context, dir string) error {
	args := runc("restore", "--detach", "--image-path", dir, "--work-path", "/run", "--bundle", "/srv/bundles/runc")
	_, err := m.lab.B.Run(ctx, "sh", "-c", "exec "+strings.Join(args, " ")+" runc </dev/null >/run/restore.out 2>&1")
	return err
}

// snapshot is the pause of a container that is saved, to memory, and runs on.
func snapshot(l load, tool string) func(context.Context, *stage) (*sample, error) {
	return func(ctx context.Context, s *stage) (*sample, error) {
		m := newSaver(s, l, tool)
		client, err := s.startWatched(ctx, m.start, l)
		defer cleanUp(ctx, func(ctx context.Context) {
			m.clean(ctx)
			_, _ = s.lab.A.Run(ctx, "rm", "-rf", "/run/images")
		})
		if err != nil {
			return nil, err
		}
		defer client.kill()
		if err := s.warmth.release(2*l.whole() + 512); err != nil {
			return nil, err
		}
		result, err := timed(step{"checkpoint", func() error { return m.save(ctx, "/run/images", "--leave-running") }})
		if err != nil {
			return nil, err
		}
		answers, err := client.end(result.window)
		if err != nil {
			return nil, err
		}
		maps.Copy(result.Values, answers.silences(result.window))
		return &result.sample, nil
	}
}

// restoreFromDisk is the time from the command to the first answer of a container that was saved to a disk.
func restoreFromDisk(l load, tool string) func(context.Context, *stage) (*sample, error) {
	return func(ctx context.Context, s *stage) (*sample, error) {
		m := newSaver(s, l, tool)
		// The file system that both hosts have.
		dir := "/var/lib/migrate-lab/" + s.lab.Name + "/images"
		defer cleanUp(ctx, func(ctx context.Context) {
			m.clean(ctx)
			_, _ = s.lab.A.Run(ctx, "rm", "-rf", dir)
		})
		client, err := s.startWatched(ctx, m.start, l)
		if err != nil {
			return nil, err
		}
		defer client.kill()
		if err := m.save(ctx, dir); err != nil {
			return nil, err
		}
		if err := dropCache(ctx, s, dir); err != nil {
			return nil, err
		}
		if err := s.warmth.release(2*l.whole() + 512); err != nil {
			return nil, err
		}
		result, err := timed(step{"restore", func() error { return m.makeAgain(ctx, dir) }})
		if err != nil {
			return nil, err
		}
		answers, err := client.end(result.window)
		if err != nil {
			return nil, err
		}
		ms, ok := answers.firstAfter(result.from)
		if !ok {
			return nil, errors.New("the restored container does not answer")
		}
		result.Values[first] = ms
		return &result.sample, m.check(ctx)
	}
}

// dropCache has the files read from the disk at their next use.
func dropCache(ctx context.Context, s *stage, dir string) error {
	_, err := s.lab.A.Run(ctx, "bash", "-ec", `
		sync -f "$0"
		find "$0" -type f -exec dd if={} iflag=nocache count=0 status=none ";"`, dir)
	return err
}
