package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/console"
)

// onTerminal starts a command whose standard streams are a terminal of this size, and returns the other end of that.
func onTerminal(t *testing.T, cmd *exec.Cmd, size console.WinSize) (console.Console, *screen) {
	t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := master.Resize(size); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return master, newScreen(master)
}

func TestAttachIsATerminalAgain(t *testing.T) {
	const script = `trap 'echo "drawn $(stty size)"' WINCH; echo begun; while read line; do echo "got $line"; [ "$line" = end ] && exit 5; done; while :; do read line && echo "got $line"; [ "$line" = end ] && exit 5; done`
	h := newContainerHost(t, script, terminal)
	id, log := h.id("attach"), filepath.Join(t.TempDir(), "log")
	h.ok("run", "--detach", "--log-file", log, id)
	eventually(t, "it runs", fileHas(log, "begun"))

	first := h.command("attach", id)
	keys, shown := onTerminal(t, first, console.WinSize{Height: 33, Width: 77})
	eventually(t, "the screen is drawn in this terminal's size", shown.shows("drawn 33 77"))
	if err := keys.Resize(console.WinSize{Height: 20, Width: 50}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the size follows", shown.shows("drawn 20 50"))
	second := h.command("attach", "--detach-keys", "ctrl-x", id)
	otherKeys, otherShown := onTerminal(t, second, console.WinSize{Height: 20, Width: 50})
	eventually(t, "the screen is drawn for the other client", otherShown.shows("drawn 20 50"))
	typeKeys(t, keys, "hello\r")
	eventually(t, "the client sees the answer", shown.shows("got hello"))
	eventually(t, "the other client does", otherShown.shows("got hello"))
	typeKeys(t, keys, "\x10\x11")
	eventually(t, "it says that it goes", shown.shows("detached: "+id+" runs on"))
	if err := first.Wait(); err != nil {
		t.Errorf("after the detach keys: %v", err)
	}
	if got := h.state(id).Status; got != "running" {
		t.Errorf("the container is %s", got)
	}
	typeKeys(t, otherKeys, "end\r")
	_ = second.Wait()
	if code := second.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	eventually(t, "the log has it all", fileHas(log, "got end"))
	if got := h.run("attach", id); got.code != 1 || !strings.Contains(message(t, got.stderr), "not running") {
		t.Errorf("after the end: exit code %d: %s", got.code, got.stderr)
	}
}

func typeKeys(t *testing.T, keys console.Console, text string) {
	t.Helper()
	if _, err := keys.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestAttachWithoutATerminal(t *testing.T) {
	const script = `trap 'echo told to end; exit 6' TERM; while :; do echo tick; sleep 0.1; done & while :; do read line && echo "got $line"; done`
	h := newContainerHost(t, script)
	id, log := h.id("attachpipe"), filepath.Join(t.TempDir(), "log")
	h.ok("run", "-d", "-i", "--log-file", log, id)

	for _, word := range []string{"one", "two"} { // standard input stays open for the next
		client, out := h.attached(word+"\n", "--sig-proxy=false", id)
		eventually(t, "its answer comes", fileHas(out, "got "+word))
		if err := client.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if _ = client.Wait(); client.ProcessState.ExitCode() != 130 {
			t.Errorf("interrupted: exit code %d", client.ProcessState.ExitCode())
		}
	}
	h.endsAlone(id, syscall.SIGHUP, 129)
	h.endsAlone(id, syscall.SIGTERM, 143, "--no-stdin")
	var attached []*exec.Cmd
	for _, args := range [][]string{{"three\n", "--no-stdin", id}, {"four\n", id}, {"", id}} {
		client, out := h.attached(args[0], args[1:]...)
		eventually(t, "it sees output", fileHas(out, "tick"))
		attached = append(attached, client)
	}
	eventually(t, "input arrives", fileHas(log, "got four"))
	if err := attached[2].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for i, cmd := range attached {
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 6 {
			t.Errorf("at the container's end: client %d, exit code %d", i, cmd.ProcessState.ExitCode())
		}
	}
	if fileHas(log, "got three")() {
		t.Error("input came in spite of --no-stdin")
	}
}

// endsAlone: a client whose reader has stopped ends by a signal, and the container does not.
func (h *host) endsAlone(id string, signal syscall.Signal, want int, flags ...string) {
	h.t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	defer read.Close()
	if _, err := write.Write(make([]byte, 64<<10)); err != nil { // it is full
		h.t.Fatal(err)
	}
	client := h.command(append(append([]string{"attach"}, flags...), id)...)
	client.Stdout = write
	if err := client.Start(); err != nil {
		h.t.Fatal(err)
	}
	write.Close()
	eventually(h.t, "it is attached, and writes", func() bool {
		return waitsToWrite(client.Process.Pid)
	})
	if err := client.Process.Signal(signal); err != nil {
		h.t.Fatal(err)
	}
	if _ = client.Wait(); client.ProcessState.ExitCode() != want {
		h.t.Errorf("%v: exit code %d, want %d", signal, client.ProcessState.ExitCode(), want)
	}
	if got := h.state(id).Status; got != "running" {
		h.t.Errorf("after a client's %v the container is %s", signal, got)
	}
}

// waitsToWrite: one of its threads does.
func waitsToWrite(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if strings.HasPrefix(string(text), fmt.Sprintf("%d 0x1 ", syscall.SYS_WRITE)) {
			return true
		}
	}
	return false
}

// attached is a client with this standard input, and the file that it writes what it sees to.
func (h *host) attached(input string, args ...string) (client *exec.Cmd, out string) {
	h.t.Helper()
	file, err := os.Create(filepath.Join(h.t.TempDir(), "out"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer file.Close()
	client = h.command(append([]string{"attach"}, args...)...)
	client.Stdin, client.Stdout = strings.NewReader(input), file
	if err := client.Start(); err != nil {
		h.t.Fatal(err)
	}
	return client, file.Name()
}

func TestAttachSaysWhyItCannot(t *testing.T) {
	h := newContainerHost(t, "sleep 60")
	id := h.id("alone")
	h.ok("run", "-d", id)
	tests := map[string]struct {
		args []string
		want string
	}{
		"no monitor":         {[]string{id}, "standard streams belong to the program that started it"},
		"no container":       {[]string{"none"}, "container does not exist"},
		"unknown key":        {[]string{"--detach-keys", "shift-x", id}, "unknown key"},
		"too many arguments": {[]string{id, "more"}, "requires exactly 1 argument"},
	}
	for name, test := range tests {
		if got := h.run(append([]string{"attach"}, test.args...)...); got.code != 1 || !strings.Contains(message(t, got.stderr), test.want) {
			t.Errorf("%s: exit code %d: %s", name, got.code, got.stderr)
		}
	}
	if got := h.run("run", "-d", "-i", h.id("other")); got.code != 1 || !strings.Contains(message(t, got.stderr), "--interactive needs") {
		t.Errorf("-i without a log: exit code %d: %s", got.code, got.stderr)
	}
}
