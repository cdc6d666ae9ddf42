package identity

import (
	"fmt"
	"testing"
	"time"

	"github.com/livemigrate/migrate/tests/lab"
)

// TestDeletedFilesComeAlong: open files without a name, on the rootfs and in a volume, are written by two processes all the way:
// through descriptors and a mapping, appended to, with holes that come and go, larger than CRIU takes.
func TestDeletedFilesComeAlong(t *testing.T) {
	megabytes, modes := 8, []string{"auto"}
	if *long {
		megabytes, modes = 1024, []string{"stop-copy", "pre-copy", "post-copy", "hybrid", "auto"}
	}
	w := newWorld(t, 6*time.Minute)
	w.mustMake(w.A, "/srv/data/x")
	if err := w.A.Bundle(w.ctx, "workload", webBundle, "deleted", fmt.Sprint(megabytes), "/tmp/gone", "/data"); err != nil {
		t.Fatal(err)
	}
	w.edit(w.A, webBundle, func(config map[string]any) {
		config["mounts"] = append(config["mounts"].([]any), map[string]any{
			"destination": "/data", "type": "bind", "source": w.A.Path("/srv/data"), "options": []string{"rbind"},
		})
	})
	w.run(w.A, "--network", "bridge=br0,address=10.77.0.100/24")
	check := func() {
		t.Helper()
		if _, err := w.ask("10.77.0.100:7000", "check"); err != nil {
			t.Fatal(err)
		}
	}
	w.mustWait(w.root(w.A) + "/data/ready")
	check()
	var there, back lab.PushResult
	for _, mode := range modes {
		there = w.push(w.A, w.B, web, "--mode", mode)
		check()
		back = w.push(w.B, w.A, web, "--mode", mode)
		check()
	}
	figure("deleted files, written all the time", "2 directories of %d MB and a sparse 5 GB each: the same, there and back, modes %v; away %.0f and %.0f ms",
		megabytes+10, modes, there.DowntimeMS, back.DowntimeMS)
}
