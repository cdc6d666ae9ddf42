package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// target is a fuzz function.
type target struct{ pkg, name string } // the package by its directory

// find reads the names from the tests beneath a directory: to ask each package for them would build it.
func find(root string) ([]target, error) {
	declared := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)
	var all []target
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, match := range declared.FindAllStringSubmatch(string(text), -1) {
			all = append(all, target{filepath.Dir(path), match[1]})
		}
		return err
	})
	return all, err
}

// builder makes the test of each package once.
type builder struct {
	dir   string
	built map[string]string
	cache string // of inputs that earlier runs found
}

func (b *builder) build(ctx context.Context, pkg string) (string, error) {
	if path := b.built[pkg]; path != "" {
		return path, nil
	}
	if b.cache == "" {
		out, err := exec.CommandContext(ctx, "go", "env", "GOCACHE").Output()
		if err != nil {
			return "", fmt.Errorf("find go's cache: %w", err)
		}
		b.cache = filepath.Join(strings.TrimSpace(string(out)), "fuzz", "github.com", "livemigrate", "migrate")
	}
	path := filepath.Join(b.dir, strings.ReplaceAll(pkg, "/", "-")+".test")
	// The name in -fuzz matters not: it has the compiler count branches.
	build := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz", ".", "-o", path, "./"+pkg)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	b.built[pkg] = path
	return path, nil
}

// outcome is what became of a target.
type outcome struct {
	target
	execs, fresh int64
	inputs       []string // that it did not survive
	err          error
}

func (o *outcome) failed() bool { return o.err != nil || len(o.inputs) > 0 }

// crashers is a cell of the table.
func (o *outcome) crashers() string {
	switch {
	case len(o.inputs) > 0:
		return strings.Join(o.inputs, " ")
	case o.err != nil:
		return o.err.Error()
	}
	return "0"
}

// fuzz runs a target for a while, and shows what it says.
func (t target) fuzz(ctx context.Context, b *builder, every time.Duration) outcome {
	o := outcome{target: t}
	fmt.Printf("== %s (%s)\n", t.name, t.pkg)
	binary, err := b.build(ctx, t.pkg)
	if err != nil {
		o.err = err
		return o
	}
	run := exec.CommandContext(ctx, binary, "-test.run", "^$", "-test.fuzz", "^"+t.name+"$", "-test.fuzztime", every.String(),
		"-test.fuzzminimizetime", "100x", // by default all of a short run goes into making the first inputs smaller
		"-test.fuzzcachedir", filepath.Join(b.cache, t.pkg))
	run.Dir = t.pkg // where testdata is
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	run.WaitDelay = 10 * time.Second
	said, say, err := os.Pipe() // for both: progress comes by one, and what fails by the other
	if err != nil {
		o.err = err
		return o
	}
	defer func() { _ = said.Close() }()
	run.Stdout, run.Stderr = say, say
	o.err = run.Start()
	if err := say.Close(); o.err != nil || err != nil {
		o.err = errors.Join(o.err, err)
		return o
	}
	o.listen(io.TeeReader(said, os.Stdout))
	o.err = run.Wait()
	return o
}

// listen takes the figures from lines like these, of which the last counts:
//
//	fuzz: elapsed: 9s, execs: 171923 (18938/sec), new interesting: 4 (total: 61)
//	    Failing input written to testdata/fuzz/FuzzDecode/5838cdfae7b16cde
func (o *outcome) listen(said io.Reader) {
	progress := regexp.MustCompile(`^fuzz: elapsed: .*, execs: (\d+) .*new interesting: (\d+)`)
	crasher := regexp.MustCompile(`^\s*Failing input written to (\S+)`)
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if match := progress.FindStringSubmatch(lines.Text()); match != nil {
			o.execs, _ = strconv.ParseInt(match[1], 10, 64)
			o.fresh, _ = strconv.ParseInt(match[2], 10, 64)
		}
		if match := crasher.FindStringSubmatch(lines.Text()); match != nil {
			o.inputs = append(o.inputs, filepath.Join(o.pkg, match[1]))
		}
	}
	_, _ = io.Copy(io.Discard, said) // a line too long ends the scan, and the target is not to wait for a reader
}
