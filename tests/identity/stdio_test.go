package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/tests/lab"
)

// writing is how a container writes its numbered lines, and who reads them.
type writing struct {
	every, pause time.Duration
	length       int
	reader       string // of the pipes of a container without a monitor: a shell's script. Empty: it has one
}

func (w *writing) flags() []string {
	return []string{"lines", "-every", w.every.String(), "-pause", w.pause.String(), "-length", strconv.Itoa(w.length)}
}

// TestStandardStreams: a container writes numbered lines while it is moved to and fro, and while moves fail. The logs of
// both hosts one after the other are what it has written. Another one has a terminal.
func TestStandardStreams(t *testing.T) {
	kinds := map[string]*writing{
		"fast":   {},
		"long":   {every: 50 * time.Millisecond, length: 100_000},                                                    // more than a pipe holds: a write is stopped half-way
		"unread": {every: time.Millisecond, length: 1000, reader: "until [ -e /srv/read ]; do sleep 0.1; done; cat"}, // its pipe is full
		"late": {
			every: time.Millisecond, length: 1000,
			reader: "for n in $(seq 600); do [ -e /srv/read ] && break; sleep 0.1; dd bs=65536 count=1 2>/dev/null; done; cat",
		}, // and not in the freeze
		"engine":  {every: time.Millisecond, reader: "cat"},                   // somebody else reads, at first
		"partial": {every: 5 * time.Millisecond, pause: 5 * time.Millisecond}, // stopped in the middle of a line
		"busy":    {every: time.Millisecond, length: 80},
		"both":    {pause: time.Millisecond, length: 100_000},
	}
	names, moves, limit := []string{"long", "late"}, 2, 3*time.Minute
	if *long {
		names, moves, limit = append(names, "unread", "fast", "engine", "partial", "busy", "both"), 6, 10*time.Minute
	}
	w := newWorld(t, limit)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			j := &journey{world: w, t: t, id: name, at: w.A, logs: map[*lab.Host]*os.File{}, text: numbered{length: kinds[name].length}}
			j.travel(kinds[name], moves)
		})
	}
	t.Run("unended", func(t *testing.T) { (&journey{world: w, t: t, id: "unended", at: w.A}).unended() })
	t.Run("reopened", func(t *testing.T) { (&journey{world: w, t: t, id: "reopened", at: w.A}).reopen() })
	t.Run("terminal", func(t *testing.T) { (&journey{world: w, t: t, id: "tty", at: w.A}).attach() })
}

// journey is a container on its way.
type journey struct {
	*world
	t      *testing.T
	id     string
	at     *lab.Host
	logs   map[*lab.Host]*os.File // read so far
	text   numbered
	failed int
}

func (j *journey) travel(how *writing, moves int) {
	bundle := "/srv/bundles/" + j.id
	j.must(j.A.Bundle(j.ctx, "workload", bundle, how.flags()...))
	engine := func() string { return "" }
	if how.reader != "" {
		engine = j.startEngine(how.reader, bundle)
	} else {
		j.must(j.A.Start(j.ctx, "migrate", "run", "--detach", "--log-file", "/srv/"+j.id+".log", "--bundle", bundle, j.id))
	}
	for n := range moves {
		time.Sleep(300 * time.Millisecond)
		from, to := j.at, j.other()
		j.fail(to)
		j.push(from, to, j.id)
		j.at = to
		if n == 0 && how.reader != "" {
			j.text.follow(j.t, engine())
		} else {
			j.text.follow(j.t, j.news(from, how))
		}
	}
	time.Sleep(300 * time.Millisecond)
	_, err := j.at.Run(j.ctx, "migrate", "kill", j.id, "TERM")
	j.must(err)
	j.awaitEnd()
	j.text.end(j.t, j.news(j.at, how))
	figure("numbered log lines, "+j.id, "%d lines, 0 lost, 0 doubled; %d moves, and %d that failed", 2*j.text.count, moves, j.failed)
}

// unended: the source is told that the container runs at the peer, and says nothing more for a while. The container has a reader
// there all the same.
func (j *journey) unended() {
	bundle, log := "/srv/bundles/"+j.id, "/srv/"+j.id+".log"
	j.must(j.A.Bundle(j.ctx, "workload", bundle, (&writing{every: time.Millisecond, length: 1000}).flags()...))
	j.must(j.A.Start(j.ctx, "migrate", "run", "--detach", "--log-file", log, "--bundle", bundle, j.id))
	push, err := j.A.Push(j.ctx, "--mode", "stop-copy", j.id, j.tls(j.B))
	j.must(err)
	state := filepath.Join("/proc", strconv.Itoa(j.B.Holder()), "root/run/migrate", j.id, "state.json")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Microsecond) {
		if text, _ := os.ReadFile(state); bytes.Contains(text, []byte(`"monitor_pid"`)) {
			break // about to run
		}
		if time.Now().After(deadline) {
			j.t.Fatal("the container does not come")
		}
	}
	keepers := j.A.Keepers()
	for _, pid := range keepers {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	const pipes = 4 * 64 << 10
	var size int64
	began := time.Now()
	for ; size < pipes && time.Since(began) < 1500*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		if info, err := os.Stat(j.B.Path(log)); err == nil {
			size = info.Size()
		}
	}
	for _, pid := range keepers {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	if size < pipes || len(keepers) != 1 {
		j.t.Errorf("%d bytes are in the log at the peer %v after the container came, more than %d are written; %d keepers at the source",
			size, time.Since(began), pipes, len(keepers))
	}
	if code, err := push.Wait(time.Minute); code != 0 || err != nil {
		j.t.Errorf("push: exit status %d, %v: %s", code, err, push.Result.Error)
	}
}

// reopen: a program that is not root's opens /dev/stdout again where it has come to.
func (j *journey) reopen() {
	bundle, log := "/srv/bundles/"+j.id, "/srv/"+j.id+".log"
	j.must(j.A.Bundle(j.ctx, "busybox", bundle, "sh", "-c", "while sleep 0.02; do echo reopened >/dev/stdout || exit 1; done"))
	config := j.A.Path(bundle + "/config.json")
	text, err := os.ReadFile(config)
	j.must(err)
	text, err = withUser(text, 1000)
	j.must(err)
	j.must(os.WriteFile(config, text, 0o600))
	j.must(j.A.Start(j.ctx, "migrate", "run", "--detach", "--log-file", log, "--bundle", bundle, j.id))
	j.push(j.A, j.B, j.id)
	for range 200 {
		if text, _ := os.ReadFile(j.B.Path(log)); bytes.Count(text, []byte("reopened\n")) > 5 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	got, err := os.ReadFile(j.B.Path(log))
	j.t.Errorf("at the peer it writes %q, %v", got, err)
}

// withUser changes who the program of a config is, in a user namespace.
func withUser(config []byte, uid uint32) ([]byte, error) {
	var spec specs.Spec
	if err := json.Unmarshal(config, &spec); err != nil {
		return nil, err
	}
	spec.Process.User = specs.User{UID: uid, GID: uid}
	// In a user namespace CRIU may read its limits wherever it may do anything.
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = maps, maps
	return json.Marshal(&spec)
}

func (j *journey) must(err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
}

func (j *journey) other() *lab.Host {
	if j.at == j.A {
		return j.B
	}
	return j.A
}

// startEngine starts the container as an engine would, which has the other ends of its pipes. The function ends the reading and
// returns all that was read.
func (j *journey) startEngine(reader, bundle string) func() string {
	j.t.Helper()
	cmd := j.A.Command(j.ctx, "sh", "-c", `migrate run --detach --bundle "$1" "$2" 2>&1 </dev/null | { `+reader+`; } >/srv/engine.log`, "-", bundle, j.id)
	j.must(cmd.Start())
	for range 100 {
		if _, err := j.A.Run(j.ctx, "migrate", "state", j.id); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return func() string {
		j.must(os.WriteFile(j.A.Path("/srv/read"), nil, 0o600))
		j.must(cmd.Wait())
		text, err := os.ReadFile(j.A.Path("/srv/engine.log"))
		j.must(err)
		return string(text)
	}
}

// fail begins a move and kills the peer's half of it while the container stands still.
func (j *journey) fail(to *lab.Host) {
	j.t.Helper()
	push, err := j.at.Push(j.ctx, j.id, j.tls(to))
	j.must(err)
	if !push.Until("precopy") {
		j.t.Fatalf("push ended before its rounds: %s", push.Said())
	}
	// The peer's CRIU, which is there already, stands still: the move can't be over before the keeper is killed.
	criu, err := to.AwaitCRIUs()
	j.must(err)
	for _, pid := range criu {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	push.Until("dump")
	for _, pid := range to.Keepers() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if code, err := push.Wait(time.Minute); code != 1 || err != nil || push.Result.Outcome != "kept" {
		j.t.Fatalf("a move whose peer is killed: exit status %d, %v, %+v", code, err, push.Result)
	}
	j.failed++
}

// news is what a host's log has got since the last time. A container whose pipes were somebody else's has a log of the peer's
// making.
func (j *journey) news(h *lab.Host, how *writing) string {
	j.t.Helper()
	if j.logs[h] == nil {
		path := h.Path("/srv/" + j.id + ".log")
		if how.reader != "" {
			path = h.Path("/var/lib/migrate/log/" + j.id + "/stdio.log")
		}
		f, err := os.Open(path)
		j.must(err)
		j.t.Cleanup(func() { f.Close() })
		j.logs[h] = f
	}
	text, err := io.ReadAll(j.logs[h])
	j.must(err)
	return string(text)
}

// awaitEnd: the monitor is there until the log has everything.
func (j *journey) awaitEnd() {
	j.t.Helper()
	socket := filepath.Join("/proc", strconv.Itoa(j.at.Holder()), "root/run/migrate", j.id, "monitor.sock")
	for range 200 {
		if _, err := os.Lstat(socket); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	j.t.Fatalf("%s does not end", j.id)
}

// numbered compares text with what workload's lines writes, as it comes.
type numbered struct {
	length int
	count  int    // pairs of lines that have come
	want   string // the rest of the pair that is coming
}

func (n *numbered) follow(t *testing.T, got string) {
	t.Helper()
	for got != "" {
		if n.want == "" {
			n.count++
			for _, name := range []string{"out", "err"} {
				text := fmt.Sprintf("%s %d", name, n.count)
				n.want += text + strings.Repeat(".", max(0, n.length-len(text))) + "\n"
			}
		}
		k := min(len(got), len(n.want))
		if got[:k] != n.want[:k] {
			t.Fatalf("at pair %d comes %.200q, want %.200q", n.count, got, n.want)
		}
		got, n.want = got[k:], n.want[k:]
	}
}

func (n *numbered) end(t *testing.T, got string) {
	t.Helper()
	at := strings.LastIndex(got, "end ")
	if at < 0 {
		t.Fatalf("the last line is missing: ...%q", got[max(0, len(got)-200):])
	}
	n.follow(t, got[:at])
	if last := fmt.Sprintf("end %d\n", n.count); got[at:] != last || n.want != "" || n.count < 5 {
		t.Errorf("the last line is %q, want %q and before it %.200q", got[at:], last, n.want)
	}
}
