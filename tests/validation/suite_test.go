package validation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/sandbox"
)

// explanation is why migrate refuses a container that Debian's runc 1.1 makes, and the words in which it does: with any
// others the difference is a new one.
type explanation struct{ reason, words string }

// explained are by program.
var explained = map[string]explanation{
	"mounts": {
		"binds /etc with mode=755 and size=1k, which a bind mount cannot have: refused, as runc does since 1.2",
		`invalid mount on \"/mnt/etc-shared\": bind mounts cannot have any filesystem-specific options applied`,
	},
}

// comparison is one program with both runtimes.
type comparison struct {
	program    string
	runc, ours *outcome
	err        error
	looks      []string // some of what was worse, each time
}

func TestWhatRuncPassesPasses(t *testing.T) {
	testutil.Root(t)
	runc := testutil.Command(t, "runc")
	both := [2]*runtime{newRuntime(t, "runc", runc), newRuntime(t, "migrate", sandbox.Runtime())}
	before := namedGroups()
	t.Cleanup(func() {
		for _, path := range slices.Backward(namedGroups()) {
			if !slices.Contains(before, path) {
				_ = os.Remove(path)
			}
		}
	})
	entries, err := os.ReadDir(filepath.Join(suite(sandbox.Dir()), "programs"))
	if err != nil {
		t.Fatal(err)
	}
	all := make([]comparison, len(entries))
	var grouped, others []*comparison
	for i, entry := range entries {
		c := &all[i]
		c.program = entry.Name()
		if strings.Contains(c.program, "cgroups") || c.program == "delete_resources" {
			grouped = append(grouped, c)
		} else {
			others = append(others, c)
		}
	}
	var wg sync.WaitGroup
	// These name their cgroups alike: one at a time.
	wg.Go(func() {
		for _, c := range grouped {
			c.compare(t.Context(), both, false)
		}
	})
	// The others mostly sleep.
	queue := make(chan *comparison)
	for range 4 {
		wg.Go(func() {
			for c := range queue {
				c.compare(t.Context(), both, true)
			}
		})
	}
	for _, c := range others {
		queue <- c
	}
	close(queue)
	wg.Wait()
	for _, c := range all {
		t.Run(c.program, c.judge)
		if c.program == "default" && (c.runc == nil || len(c.runc.passed) == 0) {
			t.Errorf("runc fails the plainest program, so nothing is compared: %+v", c.runc)
		}
	}
	t.Log(table(all))
}

// compare runs a program with each runtime. Programs give a container seconds to end or to start, which a busy machine may
// need: what looks worse is looked at again.
func (c *comparison) compare(ctx context.Context, both [2]*runtime, together bool) {
	for range 2 {
		var outcomes [2]*outcome
		var failed [2]error
		var wg sync.WaitGroup
		for i, r := range both {
			wg.Go(func() { outcomes[i], failed[i] = r.try(ctx, c.program) })
			if !together {
				wg.Wait()
			}
		}
		wg.Wait()
		c.runc, c.ours, c.err = outcomes[0], outcomes[1], errors.Join(failed[:]...)
		if c.err != nil {
			return
		}
		worse := c.unexplained()
		if len(worse) == 0 {
			return
		}
		c.looks = append(c.looks, strings.Join(worse[:min(len(worse), 5)], "; "))
	}
}

func (c *comparison) judge(t *testing.T) {
	if c.err != nil {
		t.Fatal(c.err)
	}
	if len(c.looks) > 0 {
		t.Logf("looked at again, for runc did better: %s", strings.Join(c.looks, "\nthen: "))
	}
	if worse := c.unexplained(); len(worse) > 0 {
		t.Errorf("runc does better:\n%s", strings.Join(worse, "\n"))
	}
	if why, known := explained[c.program]; known && len(c.ours.worse(c.runc)) == 0 {
		t.Errorf("there is no difference to explain: %s", why.reason)
	}
}

// unexplained is what is worse than runc's, and for no good reason.
func (c *comparison) unexplained() []string {
	if why, known := explained[c.program]; known && c.ours.code == 1 && strings.Contains(c.ours.stderr, why.words) {
		return nil
	}
	return c.ours.worse(c.runc)
}

func table(all []comparison) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nprogram\trunc\tmigrate\t")
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.program, c.runc, c.ours, explained[c.program].reason)
	}
	w.Flush()
	return b.String()
}

// runtime is a runtime with a directory for the programs to run in.
type runtime struct{ dir, script string }

func newRuntime(t *testing.T, name, path string) *runtime {
	t.Helper()
	r := &runtime{dir: filepath.Join(sandbox.Dir(), name+".d")}
	r.script = filepath.Join(r.dir, "runtime")
	if err := os.MkdirAll(filepath.Join(r.dir, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	// A link would be copied into the root as one.
	if err := os.Link(filepath.Join(suite(sandbox.Dir()), "runtimetest"), filepath.Join(r.dir, "runtimetest")); err != nil {
		t.Fatal(err)
	}
	archives, err := filepath.Glob(filepath.Join(suite(sandbox.Dir()), "rootfs-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, archive := range archives {
		if err := os.Symlink(archive, filepath.Join(r.dir, filepath.Base(archive))); err != nil {
			t.Fatal(err)
		}
	}
	// The programs know no flags before the verb.
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root %s/state \"$@\"\n", path, r.dir)
	if err := os.WriteFile(r.script, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *runtime) try(ctx context.Context, program string) (*outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(suite(sandbox.Dir()), "programs", program))
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "RUNTIME="+r.script, "TMPDIR="+filepath.Join(r.dir, "tmp"))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	return parse(cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()), nil
}

// namedGroups are the cgroups with the names that the programs use, of which some leave theirs; parents come first.
func namedGroups() []string {
	var groups []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (strings.Contains(path+"/", "/cgrouptest/") || entry.Name() == "testdir") {
			groups = append(groups, path)
		}
		return nil
	})
	return groups
}
