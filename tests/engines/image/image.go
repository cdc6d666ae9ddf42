// Package image makes the images that the engines' tests run, of this machine's own programs, so that no registry is
// needed. Each is an OCI archive (an image layout in a tar file), which podman and buildah load and ctr imports.
//
// The images hold busybox under every name it answers to, the users root (0) and someone (1000), and the directories
// that engines mount on.
package image

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
)

// The names under which engines know the images once they are loaded.
const (
	Busybox = "localhost/migrate/busybox:latest"
	Redis   = "localhost/migrate/redis:latest"
)

// WriteBusybox writes the archive of the image Busybox to the file. It needs a static busybox on PATH.
func WriteBusybox(file string) error {
	root, err := busyboxRoot()
	if err != nil {
		return fmt.Errorf("make image %s: %w", Busybox, err)
	}
	return write(file, Busybox, root, config{Cmd: []string{"sh"}})
}

// WriteRedis writes the archive of the image Redis, whose command is a redis-server without persistence that lets anybody in, to the file. It
// needs redis-server on PATH too.
func WriteRedis(file string) error {
	root, err := busyboxRoot()
	if err == nil {
		err = root.addProgram("redis-server")
	}
	if err != nil {
		return fmt.Errorf("make image %s: %w", Redis, err)
	}
	root.addDirectory("data", 0o777)
	return write(file, Redis, root, config{
		Cmd:        []string{"redis-server", "--save", "", "--bind", "0.0.0.0", "--protected-mode", "no"},
		WorkingDir: "/data",
	})
}

// busyboxRoot is the file system that both images begin with.
func busyboxRoot() (*tree, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox's applets: %w", err)
	}
	t := newTree()
	for _, dir := range []string{"bin", "dev", "etc", "home/someone", "proc", "root", "run", "sys", "usr/bin", "var/tmp"} {
		t.addDirectory(dir, 0o755)
	}
	t.addDirectory("tmp", 0o777|os.ModeSticky)
	if err := t.addFile("bin/busybox", program, 0o755); err != nil {
		return nil, err
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			t.addLink(path.Join("bin", applet), "busybox")
		}
	}
	t.addText("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nsomeone:x:1000:1000:someone:/home/someone:/bin/sh\n")
	t.addText("etc/group", "root:x:0:\nsomeone:x:1000:\nfriends:x:2000:someone\n")
	return t, nil
}

// addProgram adds a program of this machine, with the libraries and the loader it names, where they are here.
func (t *tree) addProgram(name string) error {
	program, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if err := t.addFile(path.Join("usr/bin", name), program, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return fmt.Errorf("list the libraries of %s: %w", program, err)
	}
	for line := range bytes.Lines(out) {
		// "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f...)", and the loader without an arrow.
		for _, word := range strings.Fields(string(line)) {
			if !strings.HasPrefix(word, "/") {
				continue
			}
			if err := t.addFile(strings.TrimPrefix(word, "/"), word, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}
