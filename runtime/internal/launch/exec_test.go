package launch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/runtime/internal/launch"
)

func TestExecJoinsTheContainer(t *testing.T) {
	b := newBox(t, "sleep", "100")
	p := b.running()
	status, out, err := b.exec(p.Pid, nil, "sh", "-c", "hostname; cat /proc/1/cmdline | head -c 5; echo; readlink /proc/1/ns/net; readlink /proc/self/ns/net; exit 3")
	must(t, err)
	if status != 3 {
		t.Errorf("exit status %d, want 3", status)
	}
	lines := strings.Fields(out)
	if len(lines) != 4 || lines[0] != "boxed" || lines[1] != "sleep" || lines[2] != lines[3] {
		t.Errorf("exec printed:\n%s", out)
	}
}

func TestExecHasItsOwnUserAndCapabilities(t *testing.T) {
	b := newBox(t, "sleep", "100")
	p := b.running()
	_, out, err := b.exec(p.Pid, func(e *launch.Exec) {
		e.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7, 8}}
		e.Process.Capabilities = &specs.LinuxCapabilities{}
		e.Process.NoNewPrivileges = true
		umask := uint32(0o027)
		e.Process.User.Umask = &umask
	}, "sh", "-c", "id -u; id -G; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; echo $HOME; umask")
	must(t, err)
	want := "1000\n1000 7 8\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n/home/bob\n0027\n"
	if out != want {
		t.Errorf("exec printed:\n%s\nwant:\n%s", out, want)
	}
}

func TestExecOfAMissingProgramIsAnErrorOfExec(t *testing.T) {
	b := newBox(t, "sleep", "100")
	p := b.running()
	_, _, err := b.exec(p.Pid, nil, "nothing-here")
	if err == nil || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Errorf("error is %v", err)
	}
}

func TestExecOfADeadContainerSaysSo(t *testing.T) {
	b := newBox(t, "true")
	p, _, err := b.create()
	must(t, err)
	must(t, b.open(p))
	_, _ = p.Wait()
	if _, _, err := b.exec(p.Pid, nil, "true"); err == nil {
		t.Error("exec in a dead container succeeded")
	}
}

func TestExecJoinsAUserNamespace(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	b.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	b.spec.Linux.GIDMappings = b.spec.Linux.UIDMappings
	b.giveAway(100000)
	p := b.running()
	ours, theirs := socketPair(t)
	_, _, err := b.exec(p.Pid, func(e *launch.Exec) {
		e.Process.Terminal, e.ConsoleSocket = true, theirs
		e.Process.User = specs.User{UID: 1000, GID: 1000}
	}, "sh", "-c", "id -u; stat -c %u $(tty)")
	must(t, err)
	master, _ := receiveFile(t, ours)
	buf := make([]byte, 100)
	text := ""
	for n := 0; err == nil; n, err = master.Read(buf) {
		text += string(buf[:n])
	}
	if text != "1000\r\n1000\r\n" {
		t.Errorf("terminal shows %q", text)
	}
}

func TestExecFollowsInitIntoATimeNamespace(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	b.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 40000000}}
	p := b.running()
	_, out, err := b.exec(p.Pid, nil, "awk", "{print ($1 > 40000000)}", "/proc/uptime")
	must(t, err)
	if out != "1\n" {
		t.Errorf("exec is not in init's time namespace: %q", out)
	}
}

// The number of a dead init may be a stranger's by the time it is joined: on the host there would be nothing to join.
func TestExecNeverRunsBesideAStranger(t *testing.T) {
	b := newBox(t, "sleep", "100")
	b.running()
	stranger := exec.Command("sleep", "100")
	must(t, stranger.Start())
	defer func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	}()
	file := filepath.Join(t.TempDir(), "touched")
	_, _, err := b.exec(stranger.Process.Pid, func(e *launch.Exec) { e.InitStart-- }, "touch", file)
	if err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the program ran on the host")
	}
}
