package attacks

import (
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A device node gets its rights and owner after it is made. In a shared volume its name may by then be a link to a file of
// the host. The link is looked up on the host: the root is not entered yet. A runtime that goes by the name gives the
// host's file away in some of these starts; Debian's runc 1.1.5 does.
func TestRightsOfADeviceAreNotThoseOfAHostsFile(t *testing.T) {
	w := newWorld(t)
	c := w.container("victim", "true")
	c.spec.Mounts = append(c.spec.Mounts, bindMount(w.volume(""), "/volume"))
	mode, id := os.FileMode(0o777), uint32(4242)
	c.spec.Linux.Devices = []specs.LinuxDevice{{
		Path: "/volume/device", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &id, GID: &id,
	}}
	node, link := w.volume("device"), w.volume("link")
	must(t, os.Symlink(w.host("secret"), link))
	replaced := 0
	stop := w.meanwhile(func() {
		// The node is replaced as soon as it is there, and taken away again for the next one.
		if unix.Renameat2(unix.AT_FDCWD, node, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE) == nil {
			if info, err := os.Lstat(link); err == nil && info.Mode()&os.ModeCharDevice != 0 {
				replaced++ // not one link by another
			}
			_ = unix.Unlink(link)
			_ = unix.Symlink(w.host("secret"), link)
		}
	})
	raced(t, 1, func(int) (string, error) {
		out, err := c.run()
		_ = unix.Unlink(node)
		return out, err
	}, "make device /volume/device: something else is there in its place")
	stop()
	if replaced < starts/2 {
		t.Errorf("%d nodes of %d starts were replaced: nothing was attacked", replaced, starts)
	}
}
