package attacks

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// createWithTerminal creates the container with a terminal, whose other end is held until the test ends: the container
// would be hung up.
func (c *container) createWithTerminal() (string, error) {
	c.t.Helper()
	c.spec.Process.Terminal = true
	c.writeSpec()
	path := filepath.Join(c.dir, "console.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(c.t, err)
	done := make(chan struct{})
	defer listener.Close()
	go func() {
		defer close(done)
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		rights := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 64), rights)
		if err != nil || n == 0 {
			return // the runtime gave up before
		}
		messages, err := unix.ParseSocketControlMessage(rights[:n])
		if err != nil {
			return
		}
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil {
			c.t.Cleanup(func() { _ = unix.Close(fds[0]) })
		}
	}()
	out, err := c.migrate("create", "--console-socket", path, "--bundle", c.bundle, c.id)
	if err != nil {
		_ = listener.Close() // nobody may have come
	}
	<-done
	return out, err
}

// checkTerminal fails the test when the pty of a created container is mounted on anything but /dev/console, or something
// else than a pty is mounted there.
func (c *container) checkTerminal() {
	c.t.Helper()
	for _, m := range c.mountInfo() {
		pty := m.FSType == "devpts" && m.Root != "/"
		name := filepath.Base(m.Mountpoint)
		if pty != (name == "console" || name == "other") {
			c.t.Errorf("%s of %s is mounted on %s", m.Root, m.FSType, m.Mountpoint)
		}
	}
}

// withOwnConsole is a container whose /dev is a volume with a real null and a devpts of the container's own.
func (w *world) withOwnConsole() *container {
	must(w.t, os.MkdirAll(w.volume("dev/pts"), 0o755))
	null(w.t, w.volume("dev/null"))
	must(w.t, os.Symlink("pts/ptmx", w.volume("dev/ptmx")))
	c := w.container("victim", "sleep", "1000")
	must(w.t, os.WriteFile(c.rootfs+"/etc/target", []byte(untouched), 0o644))
	c.spec.Mounts[1] = bindMount(w.volume("dev"), "/dev")
	return c
}

// CVE-2025-52565: /dev/console was made and mounted on by its name, before anything was masked. As a link it emptied the
// file that it led to, and that file was covered by the pty: a mask or a read-only path was then laid on the pty, and the
// real file stayed open elsewhere. Debian's runc 1.1.5 empties /etc/target, makes /etc/new and starts on most links.
func TestCVE_2025_52565_ConsoleIsNoLink(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"link to a file":        func(path string) error { return os.Symlink("/etc/target", path) },
		"relative link":         func(path string) error { return os.Symlink("../etc/target", path) },
		"link into /proc":       func(path string) error { return os.Symlink("/proc/sys/kernel/domainname", path) },
		"link to a masked file": func(path string) error { return os.Symlink("/proc/keys", path) },
		"link to a pty":         func(path string) error { return os.Symlink("pts/ptmx", path) },
		"link to nothing":       func(path string) error { return os.Symlink("/etc/new", path) },
		"link to a descriptor":  func(path string) error { return os.Symlink("/proc/self/fd/1", path) },
		"directory":             func(path string) error { return os.Mkdir(path, 0o777) },
		"link to a directory":   func(path string) error { return os.Symlink("/proc/sys", path) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.withOwnConsole()
			must(t, put(w.volume("dev/console")))
			out, err := c.createWithTerminal()
			if err == nil {
				t.Error("the container was created")
			}
			wantError(t, out, "/dev/console")
			if text, err := os.ReadFile(c.rootfs + "/etc/target"); err != nil || string(text) != untouched {
				t.Errorf("/etc/target holds %q, %v", text, err)
			}
			if _, err := os.Lstat(c.rootfs + "/etc/new"); err == nil {
				t.Error("/etc/new was made")
			}
		})
	}
	for name, put := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"file":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"fifo":    func(path string) error { return unix.Mkfifo(path, 0o600) },
		"socket":  func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.withOwnConsole()
			must(t, put(w.volume("dev/console")))
			if out, err := c.createWithTerminal(); err != nil {
				t.Fatalf("create: %v: %s", err, out)
			}
			c.checkTerminal()
		})
	}
}

// The multiplexer of ptys may be false, too: what is opened in its place could be any device or a fifo that nobody reads.
func TestCVE_2025_52565_PtysComeFromADevpts(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"missing":         func(string) error { return nil },
		"file":            func(path string) error { return os.WriteFile(path, nil, 0o666) },
		"fifo":            func(path string) error { return unix.Mkfifo(path, 0o666) },
		"device":          func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))) },
		"other device":    func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"link to another": func(path string) error { return os.Symlink("/dev/real/ptmx", path) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.withOwnConsole()
			must(t, os.MkdirAll(w.volume("pts"), 0o755))
			must(t, put(w.volume("pts/ptmx")))
			c.spec.Mounts[2] = bindMount(w.volume("pts"), "/dev/pts")
			out, err := c.createWithTerminal()
			if err == nil {
				t.Error("the container was created")
			}
			wantError(t, out, "/dev/pts/ptmx")
		})
	}
}

// The same while another container exchanges the file for a link.
func TestCVE_2025_52565_ConsoleIsExchangedForALink(t *testing.T) {
	w := newWorld(t)
	c := w.withOwnConsole()
	must(t, os.WriteFile(w.volume("dev/console"), nil, 0o600))
	must(t, os.Symlink("/proc/keys", w.volume("dev/other")))
	defer w.swap(w.volume("dev/console"), w.volume("dev/other"))()
	raced(t, 1, func(int) (string, error) {
		out, err := c.createWithTerminal()
		if err == nil {
			c.checkTerminal()
			c.checkMasks()
			c.delete()
		}
		return out, err
	}, "set up console: mount /dev/console: open mount point console: too many levels of symbolic links")
}
