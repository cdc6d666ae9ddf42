package launch_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/runtime/internal/launch"
)

func TestCreatedInitWaitsForStart(t *testing.T) {
	b := newBox(t, "touch", "/tmp/started")
	p, out, err := b.create()
	must(t, err)
	marker := filepath.Join(b.launch.Rootfs, "tmp/started")
	time.Sleep(50 * time.Millisecond)
	if _, err := os.Stat(marker); err == nil {
		t.Fatal("the program ran before start")
	}
	info, err := os.Stat(filepath.Join(b.state, launch.FifoName))
	must(t, err)
	if info.Mode().Perm() != 0o622 {
		t.Errorf("fifo has mode %o", info.Mode().Perm())
	}
	must(t, b.open(p))
	if status, err := p.Wait(); err != nil || status != 0 {
		t.Errorf("exit status %d, %v", status, err)
	}
	if _, err := os.Stat(marker); err != nil {
		t.Errorf("the program did not run: %s", out.text())
	}
	if err := b.open(p); !errors.Is(err, launch.ErrStarted) {
		t.Errorf("second start: %v, want ErrStarted", err)
	}
}

func TestStartNoticesADeadInitAtOnce(t *testing.T) {
	b := newBox(t, "true")
	p, _, err := b.create()
	must(t, err)
	must(t, p.Signal(unix.SIGKILL))
	begin := time.Now()
	err = b.open(p)
	if !errors.Is(err, launch.ErrInitGone) {
		t.Errorf("start: %v, want ErrInitGone", err)
	}
	if took := time.Since(begin); took > 5*time.Second { // else it would wait for ever
		t.Errorf("start took %s", took)
	}
	_, _ = p.Wait()
}

// The parent of init, conmon under podman, reaps it as soon as it has ended: while start is still busy.
func TestStartOfAProgramThatEndsAtOnceIsNoError(t *testing.T) {
	for range 20 {
		b := newBox(t, "true")
		p, _, err := b.create()
		must(t, err)
		reaped := make(chan struct{})
		go func() {
			defer close(reaped)
			_, _ = p.Wait()
		}()
		err = b.open(p)
		<-reaped
		must(t, err)
	}
}

func TestCreateErrorsAreInitsOwnWords(t *testing.T) {
	tests := []struct {
		name   string
		change func(*box)
		want   string
	}{
		{"missing program", func(b *box) { b.spec.Process.Args = []string{"nothing-here"} }, `exec: "nothing-here": executable file not found in $PATH`},
		{"missing absolute program", func(b *box) { b.spec.Process.Args = []string{"/no/such"} }, "no such file or directory"},
		{"bad mount option", func(b *box) { b.spec.Mounts[1].Options = []string{"size=lots"} }, "size"},
		{"bad namespace path", func(b *box) { b.spec.Linux.Namespaces[1].Path = "/no/such" }, "open namespace /no/such: No such file or directory"},
		{"unknown sysctl", func(b *box) { b.spec.Linux.Sysctl = map[string]string{"net.no_such": "1"} }, "net.no_such"},
		{"missing bind source", func(b *box) { b.spec.Mounts = append(b.spec.Mounts, bind("/no/such", "/tmp")) }, "no such file or directory"},
		{"file as working directory", func(b *box) { b.spec.Process.Cwd = "/etc/passwd" }, "not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, "true")
			tt.change(b)
			_, _, err := b.create()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %q in it", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(b.state, launch.FifoName)); err == nil {
				t.Error("the exec fifo was left behind")
			}
		})
	}
}
