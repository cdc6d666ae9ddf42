package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/tests/lab"
)

// serveWithCRIU starts one more peer's side on the host, with a CRIU of the test's making, and returns its address.
func (w *world) serveWithCRIU(h *lab.Host, script string) string {
	w.t.Helper()
	path := h.Path("/srv/criu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		w.t.Fatal(err)
	}
	address := "unix://" + filepath.Join("/var/lib/migrate-lab", w.Name, h.Name+"-criu.sock")
	server, err := h.Serve(w.ctx, address, "--criu", "/srv/criu")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(server.Stop)
	return address
}

// otherVersion stands before a peer and makes every caller's preamble one of the next version: magic, then two bytes.
func (w *world) otherVersion(address string) string {
	w.t.Helper()
	path := filepath.Join("/var/lib/migrate-lab", w.Name, "other-version.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			caller, err := listener.Accept()
			if err != nil {
				return
			}
			go altered(caller, strings.TrimPrefix(address, "unix://"))
		}
	}()
	return "unix://" + path
}

func altered(caller net.Conn, path string) {
	defer caller.Close()
	opening := make([]byte, 6)
	if _, err := io.ReadFull(caller, opening); err != nil {
		return
	}
	opening[5]++
	peer, err := net.Dial("unix", path)
	if err != nil {
		return
	}
	defer peer.Close()
	if _, err := peer.Write(opening); err != nil {
		return
	}
	go func() { _, _ = io.Copy(peer, caller) }()
	_, _ = io.Copy(caller, peer)
}

func quotedCRIU() string { return "'" + strings.ReplaceAll(lab.CRIU(), "'", `'\''`) + "'" }

// A peer that says no: exit code 4, nothing was touched.
func TestRefusedMoveTouchesNothing(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "tree", "workload", "tree")
	c := w.checkWorkload()

	t.Run("id in use at the peer", func(t *testing.T) {
		w.t = t
		if err := w.B.Bundle(w.ctx, "busybox", "/srv/bundles/other"); err != nil {
			t.Fatal(err)
		}
		if err := w.B.Start(w.ctx, "migrate", "run", "--detach", "--bundle", "/srv/bundles/other", "tree"); err != nil {
			t.Fatal(err)
		}
		w.push(w.A, "tree", w.tls(w.B)).failed(4, "refused", "already exists")
		if status := w.status(w.B, "tree"); status != "running" {
			t.Errorf("the other container of that id is %q", status)
		}
		if _, err := w.B.Run(w.ctx, "migrate", "delete", "--force", "tree"); err != nil {
			t.Fatal(err)
		}
		c.unharmed()
	})

	t.Run("certificate of another authority", func(t *testing.T) {
		w.t = t
		for _, args := range [][]string{
			{"migrate", "pki", "init", "/srv/pki"},
			{"migrate", "pki", "issue", "stranger", "--host", w.A.IP, "--dir", "/srv/pki"},
		} {
			if _, err := w.A.Run(w.ctx, args...); err != nil {
				t.Fatal(err)
			}
		}
		own := []string{"--tls-cert", "/srv/pki/stranger.crt", "--tls-key", "/srv/pki/stranger.key"}
		w.push(w.A, append(own, "tree", w.tls(w.B))...).failed(1, "kept", "certificate")
		w.push(w.A, append(own, "--tls-ca", "/srv/pki/ca.crt", "tree", w.tls(w.B))...).failed(1, "kept", "certificate")
		c.unharmed()
	})

	t.Run("nobody listens", func(t *testing.T) {
		w.t = t
		w.push(w.A, "--retry", "0s", "tree", "tls://"+w.B.IP+":7449").failed(1, "kept", "connection refused")
		c.unharmed()
	})

	t.Run("a peer of another version", func(t *testing.T) {
		w.t = t
		w.push(w.A, "tree", w.otherVersion(w.unix(w.B))).failed(1, "kept", "install the same release")
		c.unharmed()
	})

	t.Run("no space at the peer", func(t *testing.T) {
		w.t = t
		if _, err := w.B.Run(w.ctx, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/srv/bundles"); err != nil {
			t.Fatal(err)
		}
		p := w.push(w.A, "tree", w.tls(w.B))
		if code := p.wait(); code != 1 && code != 4 {
			t.Errorf("push exits with %d", code)
		}
		if !strings.Contains(p.result.Error, "space") || strings.Contains(p.result.Error, "\n") {
			t.Errorf("push says %q", p.result.Error)
		}
		c.unharmed()
		if _, err := w.B.Run(w.ctx, "umount", "/srv/bundles"); err != nil {
			t.Fatal(err)
		}
	})

	w.t = t
	if now := w.where("tree"); now != w.A {
		t.Errorf("runs on %s", now.Name)
	}
	w.push(w.A, "tree", w.tls(w.B)).moved()
	c.unharmed()
}

// What cannot be moved is named in one line, with the documented exit code.
func TestBadInputIsOneClearLine(t *testing.T) {
	w := newWorld(t)
	if err := w.A.Bundle(w.ctx, "busybox", "/srv/bundles/box"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(w.A.Path("/srv/bundles/broken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.A.Path("/srv/bundles/broken/config.json"), []byte(`{"ociVersion": `), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.A.Start(w.ctx, "migrate", "create", "--bundle", "/srv/bundles/box", "created"); err != nil {
		t.Fatal(err)
	}
	peer := w.tls(w.B)
	for _, test := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"push of an unknown id", []string{"push", "nobody", peer}, 1, "does not exist"},
		{"push of an id with a slash", []string{"push", "../web", peer}, 1, "invalid container ID"},
		{"push of what is not running", []string{"push", "created", peer}, 1, "not running"},
		{"push to no address", []string{"push", "created", "b"}, 2, "tls://"},
		{"push without a peer", []string{"push", "created"}, 2, "and a peer"},
		{"push with an unknown mode", []string{"push", "--mode", "fast", "created", peer}, 2, "mode"},
		{"run without a bundle", []string{"run", "--bundle", "/srv/bundles/none", "x"}, 1, "/srv/bundles/none"},
		{"run of a broken config", []string{"run", "--bundle", "/srv/bundles/broken", "x"}, 1, "config.json"},
		{"run of an id with a slash", []string{"run", "--bundle", "/srv/bundles/box", "a/b"}, 1, "invalid container ID"},
		{"state of an unknown id", []string{"state", "nobody"}, 1, "does not exist"},
		{"checkpoint of what is not running", []string{"checkpoint", "--image-path", "/srv/images", "created"}, 1, "cannot be checkpointed in created state"},
		{"restore of no images", []string{"restore", "--image-path", "/srv/none", "--bundle", "/srv/bundles/box", "x"}, 1, "/srv/none"},
		{"resolve of nothing", []string{"resolve", "created"}, 1, "no interrupted move"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := w.A.Run(w.ctx, append([]string{"migrate"}, test.args...)...)
			failedWith(t, err, test.code, test.says)
		})
	}
	if status := w.status(w.A, "created"); status != "created" {
		t.Errorf("the container is %q", status)
	}
}

// A checkpoint that lost something is refused before anything is restored.
func TestRestoreRefusesDamagedImages(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "memory", "workload", "memory", "8")
	w.checkWorkload()
	if _, err := w.A.Run(w.ctx, "migrate", "checkpoint", "--leave-running", "--tcp-established", "--image-path", "/srv/images", "memory"); err != nil {
		t.Fatal(err)
	}
	pages := one(t, w.A.Path("/srv/images/pages-*.img"))
	core := one(t, w.A.Path("/srv/images/core-*.img"))
	for _, test := range []struct {
		name   string
		file   string
		damage string
	}{
		{"missing", core, `rm "$0"`},
		{"cut", core, `truncate -s -1 "$0"`},
		{"altered", core, `printf x | dd of="$0" bs=1 seek=40 conv=notrunc status=none`},
		{"pages missing", pages, `rm "$0"`},
		{"pages cut", pages, `truncate -s -4096 "$0"`},
		{"pages altered", pages, `printf x | dd of="$0" bs=1 seek=100000 conv=notrunc status=none`},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			file := "/srv/copy/" + filepath.Base(test.file)
			if _, err := w.A.Run(w.ctx, "sh", "-ec", "rm -rf /srv/copy; cp -a /srv/images /srv/copy; "+test.damage, file); err != nil {
				t.Fatal(err)
			}
			_, err := w.A.Run(w.ctx, "migrate", "restore", "--detach", "--tcp-established", "--image-path", "/srv/copy", "--bundle", "/srv/bundles/memory", "second")
			failedWith(t, err, 1, filepath.Base(test.file))
			if status := w.status(w.A, "second"); status != "" {
				t.Errorf("a container that is %q is left", status)
			}
		})
	}
}

func one(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return files[0]
}

// failedWith requires a command's exit code and one line that says what.
func failedWith(t *testing.T, err error, code int, says string) {
	t.Helper()
	if got := lab.ExitCode(err); got != code {
		t.Errorf("exits with %d, not %d: %v", got, code, err)
		return
	}
	said, ok := lab.Said(err)
	if !ok || !strings.Contains(said, says) || strings.Contains(said, "\n") {
		t.Errorf("says %q; want one line with %q", said, says)
	}
}
