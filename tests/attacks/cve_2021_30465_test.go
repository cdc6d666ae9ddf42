package attacks

import (
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// CVE-2021-30465: a mount point inside a volume was resolved to a path, checked, and mounted on by that path; another
// container with the same volume put a link in its place meanwhile, and the mount landed on the host's tree, where it
// could become the source of the next one. Here the place is exchanged while the container starts. A runtime that joins
// root and destination and mounts on the result fails this test in one of the first starts.
func TestCVE_2021_30465_MountPointIsExchangedForALink(t *testing.T) {
	for name, mount := range map[string]specs.Mount{
		"bind":  {Type: "bind", Options: []string{"rbind"}},
		"tmpfs": {Type: "tmpfs", Source: "tmpfs"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			must(t, os.MkdirAll(w.volume("place/inner"), 0o755))
			must(t, os.Symlink(w.host("dir"), w.volume("link")))
			payload := w.dir + "/payload"
			must(t, os.Mkdir(payload, 0o755))
			c := w.container("victim", "true")
			if mount.Type == "bind" {
				mount.Source = payload
			}
			mount.Destination = "/volume/place/inner"
			c.spec.Mounts = append(c.spec.Mounts, bindMount(w.volume(""), "/volume"), mount)
			c.watchMounts()
			defer w.swap(w.volume("place"), w.volume("link"))()
			raced(t, 1, func(int) (string, error) {
				out, err := c.run()
				c.checkMounts(err)
				return out, err
			}, "/volume/place")
		})
	}
}
