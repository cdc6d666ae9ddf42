package e2e

import (
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/tests/lab"
)

// hardship is a container that the memory engine does not meet every day.
type hardship struct {
	name    string
	args    []string // of the workload
	change  func(w *world, h *lab.Host, bundle string, spec *specs.Spec)
	address func(w *world) func(*lab.Host) string
	modes   []string
	short   bool // also without -moves
}

func hardships() []hardship {
	all := []string{"pre-copy", "post-copy", "auto", "stop-copy", "hybrid"}
	following := []string{"post-copy", "hybrid"}
	ssh := func(w *world) func(*lab.Host) string { return w.ssh }
	unix := func(w *world) func(*lab.Host) string { return w.unix }
	return []hardship{
		{name: "500 processes", args: []string{"memory", "--forks", "500", "1"}, modes: all},
		{name: "many areas", args: []string{"kinds", "--megabytes", "1", "--forks", "1", "--small", "60000"}, modes: all},
		{name: "processes that come and go", args: []string{"kinds", "--megabytes", "1", "--forks", "16", "--rate", "10000"}, modes: all},
		{name: "a limit of memory", args: []string{"memory", "--rate", "5000", "256"}, change: limited(290 << 20), modes: all},
		{name: "forks under a limit", args: []string{"memory", "--forks", "4", "64"}, change: limited(100 << 20), modes: all, short: true},
		{name: "a gigabyte that follows", args: []string{"memory", "--rate", "5000", "1024"}, modes: following},
		{name: "memory that follows over ssh", args: []string{"memory", "--rate", "5000", "128"}, address: ssh, modes: following},
		{name: "memory that follows over unix", args: []string{"memory", "--rate", "5000", "128"}, address: unix, modes: following},
	}
}

func limited(bytes int64) func(*world, *lab.Host, string, *specs.Spec) {
	return func(_ *world, _ *lab.Host, _ string, spec *specs.Spec) {
		spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &bytes}
	}
}

// There and back again; with -moves, of `make test-strangers`, all of them, and in every mode.
func TestHardships(t *testing.T) {
	for _, h := range hardships() {
		if !h.short && *moves == 0 {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			w := newWorldFor(t, 3*time.Minute+time.Duration(*moves)*time.Minute)
			w.runChanged(w.A, "hard", "workload", func(bundle string, spec *specs.Spec) {
				if h.change != nil {
					h.change(w, w.A, bundle, spec)
				}
			}, h.args...)
			c := w.checkWorkload()
			address := w.tls
			if h.address != nil {
				address = h.address(w)
			}
			w.travel("hard", c, address, h.modes)
		})
	}
}
