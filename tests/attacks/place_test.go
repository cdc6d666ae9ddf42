package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// place is one of the things that a spec puts somewhere in the container. at is where; the test makes that a link.
type place struct {
	name string
	put  func(w *world, s *specs.Spec, at string)
	// inPlace says that the kernel's own tree or a node is made there, which no link may lead: then nothing starts.
	inPlace bool
}

func places() []place {
	mount := func(kind, source string, options ...string) func(*world, *specs.Spec, string) {
		return func(_ *world, s *specs.Spec, at string) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: kind, Source: source, Destination: at, Options: options})
		}
	}
	return []place{
		{name: "bind of a directory", put: func(w *world, s *specs.Spec, at string) {
			s.Mounts = append(s.Mounts, bindMount(w.dir+"/payload", at))
		}},
		{name: "bind of a file", put: func(w *world, s *specs.Spec, at string) {
			s.Mounts = append(s.Mounts, bindMount(w.dir+"/payload/file", at))
		}},
		{name: "bind below", put: func(w *world, s *specs.Spec, at string) {
			s.Mounts = append(s.Mounts, bindMount(w.dir+"/payload", at+"/a/b"))
		}},
		{name: "tmpfs", put: mount("tmpfs", "tmpfs", "mode=777")},
		{name: "tmpfs with what was there", put: mount("tmpfs", "tmpfs", "tmpcopyup")},
		{name: "devpts", put: mount("devpts", "devpts", "newinstance")},
		{name: "mqueue", put: mount("mqueue", "mqueue")},
		{name: "cgroup", put: mount("cgroup", "cgroup", "ro")},
		{name: "proc", put: mount("proc", "proc"), inPlace: true},
		{name: "sysfs", put: mount("sysfs", "sysfs"), inPlace: true},
		{name: "masked path", put: func(_ *world, s *specs.Spec, at string) {
			s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, at)
		}},
		{name: "read-only path", put: func(_ *world, s *specs.Spec, at string) {
			s.Linux.ReadonlyPaths = append(s.Linux.ReadonlyPaths, at)
		}},
		{name: "device", put: func(_ *world, s *specs.Spec, at string) {
			s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: at, Type: "c", Major: 1, Minor: 3})
		}, inPlace: true},
		{name: "device below", put: func(_ *world, s *specs.Spec, at string) {
			s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: at + "/device", Type: "c", Major: 1, Minor: 3})
		}},
		{name: "working directory", put: func(_ *world, s *specs.Spec, at string) { s.Process.Cwd = at }},
		{name: "working directory below", put: func(_ *world, s *specs.Spec, at string) { s.Process.Cwd = at + "/new" }},
	}
}

// Whatever a spec puts in a place where the image has a link, and wherever the link leads: either the container does not
// start and the error names the place, or what was put is beneath the root, and the host's tree is as it was. Nothing
// changes meanwhile, so each outcome is the same every time. A link to the host's path is one to that path in the root.
func TestLinksStayInTheRoot(t *testing.T) {
	for _, p := range places() {
		t.Run(p.name, func(t *testing.T) {
			for name := range links(&world{}) {
				t.Run(name, func(t *testing.T) { p.attack(t, name) })
			}
		})
	}
}

func (p *place) attack(t *testing.T, link string) {
	w := linkedWorld(t)
	must(t, os.MkdirAll(w.dir+"/payload", 0o755))
	must(t, os.WriteFile(w.dir+"/payload/file", nil, 0o644))
	c := w.container("victim", "readlink", "/proc/self/cwd")
	must(t, os.Symlink(links(w)[link], c.rootfs+"/place"))
	must(t, os.Symlink("loop", c.rootfs+"/loop"))
	c.spec.Mounts = append(c.spec.Mounts, bindMount(w.volume(""), "/volume"))
	p.put(w, c.spec, "/place")
	c.watchMounts()
	out, err := c.run()
	c.checkMounts(err)
	if err != nil {
		wantError(t, out, "/place")
	}
	if err == nil && p.inPlace {
		t.Errorf("the container started: %s", out)
	}
	// The container prints its working directory. One that looks like the host's must be the root's of that name.
	if at := strings.TrimSpace(out); err == nil && strings.HasPrefix(at, w.host("")) {
		if _, err := os.Stat(filepath.Join(c.rootfs, at)); err != nil {
			t.Errorf("the working directory is %q: %v", at, err)
		}
	}
	if target, err := os.Readlink(c.rootfs + "/place"); err != nil || target != links(w)[link] {
		t.Errorf("the link leads to %q now, %v", target, err)
	}
}
