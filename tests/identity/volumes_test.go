package identity

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/tests/lab"
)

const (
	web       = "web"
	webBundle = "/srv/bundles/web"
)

// bundle lays a busybox that runs a script, and lets edit change its config.
func (w *world) bundle(h *lab.Host, script string, edit func(*specs.Spec)) {
	w.t.Helper()
	if err := h.Bundle(w.ctx, "busybox", webBundle, "sh", "-c", script); err != nil {
		w.t.Fatal(err)
	}
	path := h.Path(webBundle + "/config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		w.t.Fatal(err)
	}
	edit(&spec)
	if text, err = json.Marshal(&spec); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run(h *lab.Host, flags ...string) {
	w.t.Helper()
	args := append([]string{"migrate", "run", "--detach", "--log-file", "/srv/web.log", "--bundle", webBundle}, flags...)
	if err := h.Start(w.ctx, append(args, web)...); err != nil {
		w.t.Fatal(err)
	}
}

// root is where what the container sees can be read from outside.
func (w *world) root(h *lab.Host) string {
	w.t.Helper()
	said, err := h.Run(w.ctx, "migrate", "state", web)
	if err != nil {
		w.t.Fatal(err)
	}
	var state specs.State
	if err := json.Unmarshal([]byte(said), &state); err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/root", state.Pid)
}

func (w *world) in(h *lab.Host, args ...string) string {
	w.t.Helper()
	said, err := h.Run(w.ctx, append([]string{"migrate", "exec", web}, args...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(said)
}

func bindTo(source, destination string, options ...string) specs.Mount {
	return specs.Mount{Source: source, Destination: destination, Type: "bind", Options: append([]string{"rbind"}, options...)}
}

// mustMake makes files with some content, and the directories that they are in.
func (w *world) mustMake(h *lab.Host, paths ...string) {
	w.t.Helper()
	for _, path := range paths {
		path = h.Path(path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content of "+filepath.Base(path)), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestVolumes: every kind of them in one world, for that takes most of the time.
func TestVolumes(t *testing.T) {
	w := newWorld(t, 4*time.Minute)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"copied", volumesComeAlong},
		{"shared", sharedVolumesAreProven},
		{"overlay", overlayComesAlong},
	} {
		t.Run(part.name, func(t *testing.T) {
			part.run(t, &world{w.Lab, t, w.ctx})
		})
	}
}

// end removes the container and all that it had, on both hosts.
func (w *world) end(h *lab.Host) {
	w.t.Helper()
	if _, err := h.Run(w.ctx, "migrate", "delete", "--force", web); err != nil {
		w.t.Error(err)
	}
	for _, h := range []*lab.Host{w.A, w.B} {
		if err := os.RemoveAll(h.Path(webBundle)); err != nil {
			w.t.Error(err)
		}
	}
}

// volumesComeAlong: directories and single files, mounted once, twice and one in another, with what a file system can hold.
func volumesComeAlong(t *testing.T, w *world) {
	ghost, sparse := 8, "256M"
	if *long {
		ghost, sparse = 1024, "8G"
	}
	w.mustMake(w.A, "/srv/data/sub/inner", "/srv/conf/app.conf", "/srv/conf/other.conf", "/srv/conf/secret", webBundle+"/hosts")
	everyKind(t, w.A.Path("/srv/data"))
	script := fmt.Sprintf(`mkdir /data/gone; dd if=/dev/urandom of=/data/gone/a bs=1M count=%d; truncate -s %s /data/gone/b; echo end >>/data/gone/b; `+
		`exec 3>>/data/log 4<>/etc/app.conf 5<>/data/gone/a 6<>/data/gone/b; rm /data/gone/*; `, ghost, sparse) +
		`n=0; while :; do n=$((n+1)); echo $n >&3; echo $n >/own/n; sleep 0.02; done`
	w.bundle(w.A, script, func(s *specs.Spec) {
		s.Mounts = append(
			s.Mounts, bindTo("/srv/data", "/data"), bindTo("/srv/data", "/readable", "ro"), bindTo("/srv/data/sub", "/inner"),
			bindTo("/srv/conf/app.conf", "/etc/app.conf"), bindTo("/srv/conf/other.conf", "/etc/renamed.conf", "ro"), bindTo("hosts", "/etc/hosts"),
			bindTo(webBundle+"/rootfs/var/own", "/own", "rslave"), bindTo("/dev/zero", "/zero"), bindTo("/sys/kernel", "/kernel", "ro"),
			specs.Mount{Destination: "/memory", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
		)
	})
	if err := os.MkdirAll(w.A.Path(webBundle+"/rootfs/var/own"), 0o755); err != nil {
		t.Fatal(err)
	}
	everyKind(t, w.A.Path(webBundle+"/rootfs/var"))
	w.run(w.A)
	root := w.root(w.A)
	everyKind(t, root+"/memory")
	for _, err := range []error{ // a tmpfs travels without attributes and sockets
		os.Remove(root + "/memory/socket"), os.Remove(root + "/memory/capable"), syscall.Removexattr(root+"/memory/sub", "trusted.note"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.mustWait(root + "/data/log")
	deleted := w.in(w.A, "sh", "-c", deletedFiles)
	if want := fmt.Sprintf("\n%d 0\n", ghost<<20); !strings.Contains(deleted, want) || !strings.HasSuffix(deleted, "sparse") {
		t.Fatalf("what is deleted is %q", deleted)
	}
	changing := []string{"log", "own/n", "own", "gone"} // CRIU makes the deleted files anew, and deletes them: "gone" has another time
	data, inner, rootfs, memory := look(t, root+"/data", changing...), look(t, root+"/inner"), look(t, root+"/var", changing...), look(t, root+"/memory")

	result := w.push(w.A, w.B, web)
	root = w.root(w.B)
	data.same(t, "/data", look(t, root+"/data", changing...))
	data.same(t, "/readable", look(t, root+"/readable", changing...))
	inner.same(t, "/inner", look(t, root+"/inner"))
	rootfs.same(t, "the rootfs", look(t, root+"/var", changing...))
	memory.same(t, "the tmpfs", look(t, root+"/memory"))
	for path, want := range map[string]string{
		"/etc/app.conf": "content of app.conf", "/etc/renamed.conf": "content of other.conf", "/etc/hosts": "content of hosts",
	} {
		if got := w.in(w.B, "cat", path); got != want {
			t.Errorf("%s is %q", path, got)
		}
	}
	if got := w.in(w.B, "sh", "-c", "cd /data; echo new >sub/made; cat /inner/made /readable/sub/made; echo x >/readable/x || echo refused; ls /kernel | wc -l; head -c 1 /zero | wc -c"); !strings.HasPrefix(got, "new\nnew\nrefused\n") || !strings.HasSuffix(got, "\n1") {
		t.Errorf("at the peer the mounts show different things: %q", got)
	}
	if got := w.in(w.B, "sh", "-c", deletedFiles); got != deleted {
		t.Errorf("deleted files were\n%s and are\n%s", deleted, got)
	}
	w.mustWait(root + "/own/n") // each writing empties it first
	own, err := os.Stat(root + "/own/n")
	if err != nil {
		t.Fatal(err)
	}
	if inRootfs, err := os.Stat(root + "/var/own/n"); err != nil || !os.SameFile(own, inRootfs) {
		t.Errorf("the volume in the rootfs is another directory: %v", err)
	}
	counted(t, root+"/data/log")
	if secret, err := filepath.Glob(w.B.Path(webBundle+"/volumes") + "/*/secret"); err != nil || len(secret) > 0 {
		t.Errorf("a file went along that was not bound: %v", secret)
	}
	figure("volumes: directories, files, nested, twice", "%d names of each kind the same; %d bytes sent; away %.0f ms", len(data)+len(rootfs)+len(memory), result.BytesSent, result.DowntimeMS)
	figure("deleted files", "%d MB, and a sparse one of %s, the same; of %.0f ms away %.0f for CRIU's dump, %.0f for its restore", ghost, sparse,
		result.DowntimeMS, result.Phases["dump"], result.Phases["restore"])
	data = look(t, root+"/data", changing...)
	back := w.push(w.B, w.A, web)
	data.same(t, "/data, back", look(t, w.root(w.A)+"/data", changing...))
	figure("volumes: and back", "%d bytes sent; away %.0f ms", back.BytesSent, back.DowntimeMS)
	counted(t, w.root(w.A)+"/data/log")
	w.end(w.A)
}

// deletedFiles tells what the first process has open without a name: content, size, and blocks on the disk.
const deletedFiles = "cd /proc/1/fd; sha256sum <5; stat -L -c '%s %h' 5 6; tail -c 4 <6; test $(stat -L -c %b 6) -lt 1000 && echo sparse"

// sharedVolumesAreProven: each host has /srv to itself; a directory of this machine's they have both.
func sharedVolumesAreProven(t *testing.T, w *world) {
	shared := t.TempDir()
	conf := filepath.Join(shared, "conf")
	if err := os.WriteFile(conf, []byte("shared"), 0o644); err != nil {
		t.Fatal(err)
	}
	own := false
	start := func() {
		w.bundle(w.A, "exec 3>>/data/log; n=0; while :; do n=$((n+1)); echo $n >&3; sleep 0.02; done", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, bindTo(shared, "/data"), bindTo(conf, "/conf"))
			if own {
				s.Mounts = append(s.Mounts, bindTo("/srv/data", "/own"))
			}
		})
		w.run(w.A)
		w.mustWait(shared + "/log")
	}
	start()
	result := w.push(w.A, w.B, "--volumes", "shared", web)
	counted(t, shared+"/log")
	if got := w.in(w.B, "cat", "/conf"); got != "shared" {
		t.Errorf("the file is %q", got)
	}
	if names, err := syscall.Listxattr(shared, make([]byte, 4096)); names > 0 || err != nil {
		t.Errorf("left on the directory: %d bytes of attributes, %v", names, err)
	}
	figure("volumes: shared, proven to be", "%d bytes sent; away %.0f ms", result.BytesSent, result.DowntimeMS)
	w.end(w.B)

	// Both hosts have it, with the same in it, and it is not the same.
	own = true
	w.mustMake(w.A, "/srv/data/file")
	w.mustMake(w.B, "/srv/data/file")
	if err := os.Remove(shared + "/log"); err != nil {
		t.Fatal(err)
	}
	start()
	said, err := w.A.Run(w.ctx, "migrate", "push", "--volumes", "shared", web, w.tls(w.B))
	if message, _ := lab.Said(err); lab.ExitCode(err) != 4 || !strings.Contains(message, "/srv/data, bind-mounted at /own, is another directory here") {
		t.Errorf("push of a volume that is not shared: exit status %d: %s%s", lab.ExitCode(err), said, message)
	}
	figure("volumes: not shared", "refused by name, exit status %d", lab.ExitCode(err))

	// The container goes on writing to a directory that has no name any more; the peer's would silently take its place.
	if err := os.Rename(w.A.Path("/srv/data"), w.A.Path("/srv/renamed")); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"shared", "copy"} {
		said, err = w.A.Run(w.ctx, "migrate", "push", "--volumes", how, web, w.tls(w.B))
		if message, _ := lab.Said(err); lab.ExitCode(err) != 4 || !strings.Contains(message, "the source of what is bind-mounted at /own can no longer be looked at") {
			t.Errorf("push --volumes %s of a volume whose source has gone: exit status %d: %s%s", how, lab.ExitCode(err), said, message)
		}
	}
	figure("volumes: source gone", "refused by name, exit status %d", lab.ExitCode(err))
	w.end(w.A)
}

// overlayComesAlong: a read-only root of an overlay, as engines make them, and a second one with changes in its upper layer.
func overlayComesAlong(t *testing.T, w *world) {
	for _, readOnly := range []bool{true, false} {
		w.mustMake(w.A, "/srv/lower/hidden/a", "/srv/lower/hidden/b", "/srv/lower/gone", "/srv/lower/kept", "/srv/lower/changed")
		everyKind(t, w.A.Path("/srv/lower"))
		w.bundle(w.A, "sleep 1000", func(s *specs.Spec) { s.Root.Readonly = readOnly })
		rootfs := webBundle + "/rootfs"
		mount := fmt.Sprintf("mkdir -p /srv/upper /srv/work %[1]s/tmp %[1]s/run %[1]s/sys %[1]s/dev %[1]s/proc && mount -t overlay overlay "+
			"-o lowerdir=%[1]s:/srv/lower,upperdir=/srv/upper,workdir=/srv/work %[1]s", rootfs)
		if _, err := w.A.Run(w.ctx, "sh", "-c", mount); err != nil {
			t.Fatal(err)
		}
		w.run(w.A)
		root := w.root(w.A)
		if !readOnly {
			w.in(w.A, "sh", "-c", "rm /gone; rm -r /hidden; mkdir /hidden; echo new >/hidden/c; echo more >>/changed; mv /sub /moved; chmod 700 /kept")
		}
		skip := []string{"proc", "sys", "dev"}
		was := look(t, root+"/.", skip...)
		result := w.push(w.A, w.B, web)
		was.same(t, "the overlay", look(t, w.root(w.B)+"/.", skip...))
		figure(fmt.Sprintf("overlay, read-only %v", readOnly), "%d names the same; away %.0f ms", len(was), result.DowntimeMS)
		if _, err := w.A.Run(w.ctx, "sh", "-c", "umount "+rootfs+"; rm -rf /srv/lower /srv/upper /srv/work"); err != nil {
			t.Error(err)
		}
		w.end(w.B)
	}
}

func (w *world) mustWait(path string) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s does not appear", path)
		}
	}
}

// counted checks that a file has the numbers from 1 on, each once, a line each.
func counted(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d of %s is %q", i+1, path, line)
		}
	}
}
