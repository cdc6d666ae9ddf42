package attacks

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// starts is how often a race is run: against a runtime that looks a name up twice each race is won within the first few.
const starts = 60

// meanwhile runs step in a tight loop beside the test, as a process of another container would, until stop is called.
func (w *world) meanwhile(step func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				step()
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// swap exchanges two names in a tight loop. stop fails the test when that did not work.
func (w *world) swap(a, b string) (stop func()) {
	w.t.Helper()
	exchanges := 0
	end := w.meanwhile(func() {
		if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) == nil {
			exchanges++
		}
	})
	return func() {
		w.t.Helper()
		end()
		if exchanges < starts {
			w.t.Errorf("%s was exchanged %d times only: nothing was attacked", a, exchanges)
		}
	}
}

// raced runs attempt as often as a race is run. Both outcomes are right, if at least so many starts succeed, and if what the
// runtime prints in each of the others has one of the refusals in it: it may have failed before the attack had a chance.
func raced(t *testing.T, least int, attempt func(i int) (string, error), refusals ...string) {
	t.Helper()
	succeeded := 0
	for i := range starts {
		out, err := attempt(i)
		if err == nil {
			succeeded++
		} else {
			wantRefusal(t, out, refusals...)
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d of %d starts succeeded", succeeded, starts)
	if succeeded < least {
		t.Errorf("%d of %d starts succeeded, want %d", succeeded, starts, least)
	}
}

// wantRefusal fails the test when the output of a runtime that refused something has none of the reasons in it.
func wantRefusal(t testing.TB, out string, reasons ...string) {
	t.Helper()
	if !slices.ContainsFunc(reasons, func(reason string) bool { return strings.Contains(out, reason) }) {
		t.Errorf("the error is none of %q: %s", reasons, out)
	}
}

// watchMounts makes a hook write down what is mounted in the container's namespace while the host's root is still there.
func (c *container) watchMounts() {
	c.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{
		Path: "/bin/sh", Args: []string{"sh", "-c", "cat /proc/self/mountinfo >" + c.mountsFile()},
	}}}
}

func (c *container) mountsFile() string { return filepath.Join(c.bundle, "mounts") }

// checkMounts fails the test when watchMounts saw a mount of the container outside of its root, or one in it that shows
// the host's tree. failed is the error of the start: only one that failed before the hook ran has no file.
func (c *container) checkMounts(failed error) {
	c.t.Helper()
	file, err := os.Open(c.mountsFile())
	if errors.Is(err, os.ErrNotExist) && failed != nil {
		return
	}
	must(c.t, err)
	defer file.Close()
	mounts, err := mountinfo.GetMountsFromReader(file, nil)
	must(c.t, err)
	host := strings.TrimPrefix(c.host(""), filepath.Dir(c.dir)) // as any mount of the directory above shows it
	for _, m := range mounts {
		if !c.mounts[m.Mountpoint] && m.Mountpoint != c.rootfs && !strings.HasPrefix(m.Mountpoint, c.rootfs+"/") {
			c.t.Errorf("the container mounted on the host's %s", m.Mountpoint)
		}
		if strings.Contains(m.Root, host) {
			c.t.Errorf("the container has the host's %s on %s", m.Root, m.Mountpoint)
		}
	}
	must(c.t, os.Remove(c.mountsFile()))
}
