package identity

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/tests/lab"
)

// TestManyFilesOfWhichFewChange: what does not change costs nothing while the container stands still, however much there is.
func TestManyFilesOfWhichFewChange(t *testing.T) {
	directories, limit := 50, 2*time.Minute
	if *long {
		directories, limit = 2000, 8*time.Minute
	}
	const each, changing = 100, 100
	w := newWorld(t, limit)
	// The hundred are spread over as many directories as there are; all of them change from one move to the next.
	script := fmt.Sprintf("n=0; while :; do n=$((n+1)); i=0; while [ $i -lt %d ]; do echo $n of $i >/many/$((i*%d/%d))/$i; i=$((i+1)); done; echo $n >/round; sleep 0.05; done",
		changing, directories, changing)
	w.bundle(w.A, script, func(*specs.Spec) {})
	makeMany(t, w.A.Path(webBundle+"/rootfs/many"), directories, each)
	w.run(w.A)
	w.mustWait(w.A.Path(webBundle + "/rootfs/round"))

	first := w.push(w.A, w.B, "--mode", "pre-copy", web)
	frozen := lastDelta(t, w.A)
	unharmed(t, w.root(w.B), directories, each)
	figure(fmt.Sprintf("%d files, of which %d change", directories*each, changing), "first time: %.1f s while running, %.1f ms in the freeze; away %.0f ms",
		first.Phases["rootfs"]/1000, frozen, first.DowntimeMS)

	back := w.push(w.B, w.A, "--mode", "pre-copy", web)
	again := lastDelta(t, w.B)
	unharmed(t, w.root(w.A), directories, each)
	figure("the same, back", "%.1f s while running, %d bytes sent, %.1f ms in the freeze; away %.0f ms",
		back.Phases["rootfs"]/1000, back.BytesSent, again, back.DowntimeMS)
}

func makeMany(t *testing.T, top string, directories, each int) {
	t.Helper()
	var group sync.WaitGroup
	failed := make(chan error, directories)
	for d := range directories {
		group.Go(func() {
			dir := filepath.Join(top, strconv.Itoa(d))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				failed <- err
				return
			}
			for f := range each {
				if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(f)), fmt.Appendf(nil, "file %d of directory %d", f, d), 0o644); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	for err := range failed {
		t.Fatal(err)
	}
}

// unharmed looks whether the files are there, those that never change with what was in them.
func unharmed(t *testing.T, root string, directories, each int) {
	t.Helper()
	for d := range directories {
		names, err := os.ReadDir(fmt.Sprintf("%s/many/%d", root, d))
		if err != nil || len(names) != each {
			t.Fatalf("directory %d has %d files, %v", d, len(names), err)
		}
		for f := range each {
			text, err := os.ReadFile(fmt.Sprintf("%s/many/%d/%d", root, d, f))
			same := string(text) == fmt.Sprintf("file %d of directory %d", f, d)
			if changes := f*directories/each == d; err != nil || same == changes {
				t.Fatalf("file %d of directory %d is %q, %v", f, d, text, err)
			}
		}
	}
}

// lastDelta is how long the files took in the last move's freeze, in ms, as the source's log has it.
func lastDelta(t *testing.T, h *lab.Host) float64 {
	t.Helper()
	found := regexp.MustCompile(`"msg":"files in the freeze".*"took":([0-9]+)`).FindAllStringSubmatch(pushLog(t, h), -1)
	if len(found) == 0 {
		t.Fatal("the log of the push tells of no files")
	}
	took, err := strconv.ParseFloat(found[len(found)-1][1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return took / float64(time.Millisecond)
}

// pushLog is what the keeper of the host's last moves has said.
func pushLog(t *testing.T, h *lab.Host) string {
	t.Helper()
	text, err := os.ReadFile(h.Path("/var/lib/migrate/log") + "/" + web + "-push.log")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
