package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A bind mount whose source lies in the container's own root, as an engine gives for a volume kept there, and whose image
// has a link to the host in its place. Whoever opens it, and whatever the path to the root is called, the link is one to
// that path in the root. The host's file would be readable for all, and Debian's runc 1.1.5 gives it.
func TestSourceInTheRootIsNeverTheHosts(t *testing.T) {
	const root = 300000
	for _, user := range []bool{false, true} {
		for name, spell := range map[string]func(c *container) string{
			"plain":                 func(c *container) string { return c.rootfs + "/vol" },
			"with a dot":            func(c *container) string { return c.bundle + "/./rootfs/vol" },
			"with a way back":       func(c *container) string { return c.rootfs + "/../rootfs//vol" },
			"relative":              func(*container) string { return "rootfs/vol" },
			"by an alias":           func(c *container) string { return c.dir + "/alias/rootfs/vol" },
			"by an alias of a part": func(c *container) string { return c.dir + "/part/vol" },
			"by a relative alias":   func(c *container) string { return c.dir + "/relative/vol" },
		} {
			t.Run(map[bool]string{false: "root", true: "user namespace"}[user]+" "+name, func(t *testing.T) {
				w := newWorld(t)
				payload := w.dir + "/payload"
				must(t, os.WriteFile(payload, []byte("the host's\n"), 0o644))
				c := w.container("victim", "cat", "/stolen")
				// What the link means in the root is there, too, but out of reach for a mapped root: the runtime, which
				// is asked instead, must not find the host's.
				within := filepath.Join(c.rootfs, payload)
				must(t, os.MkdirAll(filepath.Dir(within), 0o755))
				must(t, os.WriteFile(within, []byte("the root's\n"), 0o644))
				must(t, os.Chmod(filepath.Dir(within), 0o700))
				must(t, os.Symlink(payload, c.rootfs+"/vol"))
				must(t, os.Symlink(c.bundle, w.dir+"/alias"))
				must(t, os.Symlink("victim/rootfs", w.dir+"/relative"))
				must(t, os.Symlink(c.rootfs+"/run", w.dir+"/part"))
				must(t, os.Symlink(payload, c.rootfs+"/run/vol"))
				if user {
					c.spec.Linux.Namespaces = append(c.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
					ids := []specs.LinuxIDMapping{{HostID: root, Size: 65536}}
					c.spec.Linux.UIDMappings, c.spec.Linux.GIDMappings = ids, ids
					must(t, os.Chown(c.rootfs, root, root))
				}
				c.spec.Mounts = append(c.spec.Mounts, bindMount(spell(c), "/stolen"))
				out, err := c.run()
				if strings.Contains(out, "the host's") {
					t.Fatal("the container reads the host's file")
				}
				if err != nil || out != "the root's\n" {
					t.Errorf("run: %v: %s", err, out)
				}
			})
		}
	}
}
