package attacks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// climb leads from any directory of the host to its root.
const climb = "../../../../../../../../.."

// CVE-2024-21626: the runtime had a directory of the host open when it took the working directory from the spec, and
// /proc/self/fd/7 named it. runc 1.1.11 (ATTACKS_RUNTIME) falls to three of these tests: the cwd of run, by a descriptor of
// its own; the cwd of exec, by the one that whoever starts the runtime leaks to it here; and the waiting init. Debian's
// 1.1.5+ds1-1+deb12u1 has the fix.
func TestCVE_2024_21626_CwdOfRunLeadsNowhere(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "cat", climb+w.host("secret"))
	for _, path := range descriptorPaths(t, c) {
		c.spec.Process.Cwd = path
		c.writeSpec()
		out, err := w.migrateWith(leak(t, w.host("dir")), "run", "--bundle", c.bundle, c.id)
		checkInside(t, "run with cwd "+path, out, err)
	}
}

func TestCVE_2024_21626_CwdOfExecLeadsNowhere(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "sleep", "1000")
	paths := descriptorPaths(t, c)
	c.running()
	for _, path := range paths {
		out, err := w.migrateWith(leak(t, w.host("dir")), "exec", "--cwd", path, c.id, "cat", climb+w.host("secret"))
		checkInside(t, "exec with cwd "+path, out, err)
	}
}

// The program itself, or a script's interpreter, may be named through a descriptor: it would be the host's.
func TestCVE_2024_21626_ProgramOfTheHostIsNotExecuted(t *testing.T) {
	w := newWorld(t)
	tools := filepath.Join(w.dir, "tools")
	must(t, os.Mkdir(tools, 0o755))
	must(t, os.WriteFile(filepath.Join(tools, "program"), []byte("#!/bin/sh\necho of the host\n"), 0o755))
	c := w.container("victim", "sleep", "1000")
	c.running()
	for _, path := range descriptorPaths(t, c) {
		for _, program := range []string{path + "/program", path + "/" + climb + tools + "/program"} {
			out, err := w.migrateWith(leak(t, tools), "exec", c.id, program)
			checkInside(t, "exec of "+program, out, err)
		}
	}
}

func TestCVE_2024_21626_StartedProcessHasNoDescriptorOfTheHost(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "sleep", "1000")
	c.writeSpec()
	if out, err := w.migrateWith(leak(t, w.host("dir")), "create", "--bundle", c.bundle, c.id); err != nil {
		t.Fatalf("create: %v: %s", err, out)
	}
	c.start()
	for who, list := range map[string]string{
		"init": "ls -l /proc/1/fd",
		"exec": "ls -l /proc/$$/fd; true", // the shell waits, and has nothing open of its own
	} {
		out, err := w.migrateWith(leak(t, w.host("dir")), "exec", c.id, "sh", "-c", list)
		must(t, err)
		if got := descriptors(t, out); len(got) > 0 {
			t.Errorf("%s has descriptors %v", who, got)
		}
	}
	// Those that the caller asks for do arrive, whatever they are: the list shows them.
	out, err := w.migrateWith(leak(t, w.host("dir")), "exec", "--preserve-fds", strconv.Itoa(leaked), c.id, "sh", "-c", "ls -l /proc/$$/fd; true")
	if got := descriptors(t, out); err != nil || len(got) != leaked {
		t.Errorf("of %d descriptors that are passed on the list has %v, %v", leaked, got, err)
	}
}

// descriptors are those in a list of ls -l that are above 0, 1 and 2, which the caller gave.
func descriptors(t *testing.T, list string) map[int]string {
	t.Helper()
	found, lines := map[int]string{}, 0
	for line := range strings.Lines(list) {
		link, target, ok := strings.Cut(strings.TrimSpace(line), " -> ")
		if !ok {
			continue
		}
		lines++
		fd, err := strconv.Atoi(link[strings.LastIndex(link, " ")+1:])
		must(t, err)
		if fd > 2 {
			found[fd] = target
		}
	}
	if lines < 3 {
		t.Errorf("no list of descriptors: %s", list)
	}
	return found
}

// Before start, init is still the runtime's own program: with every capability the container looks through all its
// descriptors, and through those of whatever else the runtime sends in.
func TestCVE_2024_21626_WaitingInitHasNoDirectoryOfTheHost(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "true")
	all := allCapabilities()
	c.spec.Process.Capabilities = &all
	c.writeSpec()
	if out, err := w.migrateWith(leak(t, w.host("dir")), "create", "--bundle", c.bundle, c.id); err != nil {
		t.Fatalf("create: %v: %s", err, out)
	}
	sweep := fmt.Sprintf(`for d in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do
		cat $d/file $d/%[1]s%[2]s 2>/dev/null
	done; true`, climb, w.host("secret"))
	for range 5 {
		out, err := w.migrateWith(leak(t, w.host("dir")), "exec", c.id, "sh", "-c", sweep)
		if err != nil || strings.Contains(out, "of the host") {
			t.Errorf("the sweep found %q: %v", out, err)
		}
	}
}

// descriptorPaths are the ways to name a descriptor of the runtime from inside, links of the image among them.
func descriptorPaths(t *testing.T, c *container) []string {
	t.Helper()
	var paths []string
	for fd := 3; fd < 16; fd++ {
		path := fmt.Sprintf("/proc/self/fd/%d", fd)
		link := fmt.Sprintf("/tmp/link%d", fd)
		must(t, os.Symlink(path, c.rootfs+link))
		paths = append(paths, path, link)
	}
	return paths
}

// leaked is how many descriptors leak passes on: some of them have a number of two digits.
const leaked = 10

// leak lets the runtime inherit a directory of the host, one of its /proc, a pipe, a socket and a file in memory.
func leak(t *testing.T, dir string) func(*exec.Cmd) {
	t.Helper()
	return func(cmd *exec.Cmd) {
		directory, err := os.Open(dir)
		must(t, err)
		proc, err := os.Open("/proc/self")
		must(t, err)
		reader, writer, err := os.Pipe()
		must(t, err)
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		memory, err := unix.MemfdCreate("leaked", unix.MFD_CLOEXEC)
		must(t, err)
		files := []*os.File{directory, proc, reader, writer}
		for _, fd := range []int{pair[0], pair[1], memory} {
			files = append(files, os.NewFile(uintptr(fd), "leaked"))
		}
		t.Cleanup(func() {
			for _, f := range files {
				f.Close()
			}
		})
		for len(files) < leaked {
			files = append(files, directory)
		}
		cmd.ExtraFiles = files
	}
}

// checkInside wants an attack to fail, in whatever way.
func checkInside(t *testing.T, what, out string, err error) {
	t.Helper()
	if err == nil || strings.Contains(out, "of the host\n") {
		t.Errorf("%s: error %v, and it printed %q", what, err, out)
	}
}
