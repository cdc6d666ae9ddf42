package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// links are targets that an image can give to a link in the place where something is to be mounted.
func links(w *world) map[string]string {
	return map[string]string{
		"absolute, to the host":      w.host("dir"),
		"relative, to the host":      strings.Repeat("../", 12) + strings.TrimPrefix(w.host("dir"), "/"),
		"absolute, into a volume":    "/volume/place",
		"relative, into a volume":    "volume/place",
		"through a link of a volume": "/volume/link",
		"dangling":                   "/volume/no/such",
		"dangling on the host":       w.host("no/such"),
		"through the kernel's links": "/proc/self/root" + w.host("dir"),
		"to the own descriptors":     "/proc/self/fd",
		"to itself":                  "loop",
	}
}

// linkedWorld has a volume with a false procfs at place, and a link to the host.
func linkedWorld(t *testing.T) *world {
	w := newWorld(t)
	falseProc(t, w.volume("place"))
	must(t, os.Symlink(w.host("dir"), w.volume("link")))
	return w
}

// withProcLink is a container whose image has a link where tree, "proc" or "sys", is to be mounted. The volume is mounted
// before, so that the link leads somewhere.
func (w *world) withProcLink(tree, target string) *container {
	c := w.container("victim", "true")
	must(w.t, os.Remove(filepath.Join(c.rootfs, tree)))
	must(w.t, os.Symlink(target, filepath.Join(c.rootfs, tree)))
	must(w.t, os.Symlink("loop", c.rootfs+"/loop"))
	c.spec.Mounts = append([]specs.Mount{bindMount(w.volume(""), "/volume")}, c.spec.Mounts...)
	c.watchMounts()
	return c
}

// linkRefusals are the reasons for which nothing is mounted on a link: it leads elsewhere, or nowhere.
func linkRefusals(tree string) []string {
	return []string{tree + " leads to /", "openat2 " + tree + ": too many levels of symbolic links"}
}
