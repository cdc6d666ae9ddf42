package identity

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/console"

	"github.com/livemigrate/migrate/tests/lab"
)

// attach is about a client that is attached while a move fails, is sent after its container when one succeeds, and attaches
// itself there.
func (j *journey) attach() {
	bundle := "/srv/bundles/" + j.id
	j.must(j.A.Bundle(j.ctx, "busybox", bundle, "sh", "-c", `while read line; do echo "got $line"; [ "$line" = end ] && exit 7; done`))
	config := j.A.Path(bundle + "/config.json")
	text, err := os.ReadFile(config)
	j.must(err)
	j.must(os.WriteFile(config, []byte(strings.Replace(string(text), `"process": {`, `"process": {"terminal": true,`, 1)), 0o644))
	j.must(j.A.Start(j.ctx, "migrate", "run", "--detach", "--log-file", "/srv/tty.log", "--bundle", bundle, j.id))

	began := time.Now()
	v := j.view(j.A)
	v.typed("one\r", "got one")
	latency := time.Since(began)
	j.fail(j.B)
	v.typed("two\r", "got two")
	j.push(j.A, j.B, j.id)
	v.awaits("tty has moved to tls://10.77.0.2:7440: attach to it there")
	v.ends(0)
	v = j.view(j.B)
	v.typed("three\r", "got three")
	v.typed("\x10\x11", "detached: tty runs on")
	v.ends(0)
	v = j.view(j.B)
	v.typed("four\r", "got four")
	j.push(j.B, j.A, "--mode", "post-copy", j.id)
	v.awaits("tty has moved to tls://10.77.0.1:7440: attach to it there")
	v.ends(0)
	v = j.view(j.A)
	v.typed("end\r", "got end")
	v.ends(7)
	figure("terminal, attached", "first answer %d ms after the start of attach; 2 moves, 1 that failed with a client", latency.Milliseconds())
}

// viewer is a terminal with an attached client.
type viewer struct {
	*journey
	cmd    *exec.Cmd
	master console.Console

	mu    sync.Mutex
	shown strings.Builder
}

func (j *journey) view(h *lab.Host) *viewer {
	j.t.Helper()
	master, path, err := console.NewPty()
	j.must(err)
	j.t.Cleanup(func() { _ = master.Close() })
	tty, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	j.must(err)
	defer tty.Close()
	v := &viewer{journey: j, cmd: h.Command(j.ctx, "migrate", "attach", j.id), master: master}
	v.cmd.Stdin, v.cmd.Stdout, v.cmd.Stderr = tty, tty, tty
	j.must(v.cmd.Start())
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			if err != nil {
				return
			}
			v.mu.Lock()
			v.shown.Write(buffer[:n])
			v.mu.Unlock()
		}
	}()
	return v
}

func (v *viewer) typed(keys, answer string) {
	v.t.Helper()
	_, err := v.master.Write([]byte(keys))
	v.must(err)
	v.awaits(answer)
}

func (v *viewer) awaits(text string) {
	v.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		shown := v.shown.String()
		v.mu.Unlock()
		switch {
		case strings.Contains(shown, text):
			return
		case time.Now().After(deadline):
			v.t.Fatalf("the terminal does not show %q: %q", text, shown)
		}
	}
}

func (v *viewer) ends(code int) {
	v.t.Helper()
	_ = v.cmd.Wait()
	if got := v.cmd.ProcessState.ExitCode(); got != code {
		v.t.Errorf("attach ends with %d, want %d", got, code)
	}
}
