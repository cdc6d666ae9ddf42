package identity

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/lab"
)

// TestFilesGoOnWhereTheLinkBroke: what has come stays, within a large file too, and the container does not notice.
func TestFilesGoOnWhereTheLinkBroke(t *testing.T) {
	megabytes, rate := 48, "16MB/s"
	if *long {
		megabytes, rate = 1024, "100MB/s"
	}
	w := newWorld(t, 3*time.Minute)
	_, err := w.A.Run(w.ctx, "ss", "-K", "dst", "192.0.2.1")
	testutil.Need(t, err == nil, "ss -K, and CONFIG_INET_DIAG_DESTROY")
	w.bundle(w.A, "n=0; exec 3>>/log; while :; do n=$((n+1)); echo $n >&3; sleep 0.02; done", func(*specs.Spec) {})
	content := make([]byte, megabytes<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	if err := os.WriteFile(w.A.Path(webBundle+"/rootfs/large"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	w.run(w.A)
	w.mustWait(w.A.Path(webBundle + "/rootfs/log"))

	move, err := w.A.Push(w.ctx, "--retry", "30s", "--bandwidth-limit", rate, "--mode", "pre-copy", web, w.tls(w.B))
	if err != nil {
		t.Fatal(err)
	}
	w.awaitPart(move, w.B, int64(len(content))*7/10)
	cut := time.Now()
	if _, err := w.A.Run(w.ctx, "ss", "-K", "dst", w.B.IP); err != nil {
		t.Fatal(err)
	}
	code, err := move.Wait(2 * time.Minute)
	if code != 0 || err != nil {
		t.Fatalf("push: exit status %d, %v: %s: %s", code, err, move.Result.Error, move.Said())
	}
	counted(t, w.root(w.B)+"/log")
	if got, err := os.ReadFile(w.root(w.B) + "/large"); err != nil || string(got) != string(content) {
		t.Errorf("the large file is damaged: %d bytes, %v", len(got), err)
	}
	sent := bytesOfPasses(t, w.A)
	const late = 1 << 20 // what the container writes into its log until the stop
	good := len(sent) == 3 && sent[0] >= int64(len(content))*6/10 && sent[1] <= int64(len(content))*4/10 && sent[2] < late
	if !good {
		t.Errorf("two attempts, and a pass right before the stop, have sent %v bytes, of a file of %d", sent, len(content))
	} else {
		figure("link cut in a large file", "%d MB: %.1f MB sent before the cut, %.1f after; moved %.1f s after it; away %.0f ms", megabytes,
			float64(sent[0])/(1<<20), float64(sent[1])/(1<<20), time.Since(cut).Seconds(), move.Result.DowntimeMS)
	}
}

// awaitPart waits until so many bytes of a file have come at the peer.
func (w *world) awaitPart(move *lab.Push, h *lab.Host, size int64) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		parts, err := filepath.Glob(h.Path(webBundle+"/rootfs") + "/.migrate-*")
		if err != nil {
			w.t.Fatal(err)
		}
		select {
		case <-move.Ended():
			w.t.Fatalf("it has ended: %s: %s", move.Result.Error, move.Said())
		default:
		}
		for _, part := range parts {
			if st, err := os.Stat(part); err == nil && st.Size() >= size {
				return
			}
		}
	}
	w.t.Fatalf("the file does not come: %s", move.Said())
}

// bytesOfPasses are the contents that the passes over the rootfs have sent while the container ran.
func bytesOfPasses(t *testing.T, h *lab.Host) []int64 {
	t.Helper()
	var all []int64
	for line := range strings.Lines(pushLog(t, h)) {
		found := regexp.MustCompile(`"msg":"files sent","tree":"rootfs","bytes":([0-9]+)`).FindStringSubmatch(line)
		if found == nil {
			continue
		}
		n, err := strconv.ParseInt(found[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}
