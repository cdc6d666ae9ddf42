package attacks

import (
	"fmt"
	"os"
	"testing"
)

// CVE-2024-45310: mount points that do not exist were made by their path; a directory of it in a shared volume,
// exchanged for a link at the right moment, made empty files and directories appear anywhere on the host. Debian's runc
// 1.1.5 makes them within the first starts of this test.
func TestCVE_2024_45310_NothingIsMadeOnTheHost(t *testing.T) {
	w := newWorld(t)
	must(t, os.Mkdir(w.volume("place"), 0o755))
	must(t, os.Symlink(w.host("empty"), w.volume("link")))
	file := w.dir + "/payload"
	must(t, os.WriteFile(file, nil, 0o644))
	c := w.container("victim", "true")
	mounts := append(c.spec.Mounts, bindMount(w.volume(""), "/volume"))
	defer w.swap(w.volume("place"), w.volume("link"))()
	raced(t, 1, func(i int) (string, error) {
		c.spec.Mounts = append(
			mounts[:len(mounts):len(mounts)],
			bindMount(file, fmt.Sprintf("/volume/place/file-%d", i)),
			bindMount(w.dir+"/volume", fmt.Sprintf("/volume/place/a-%d/b/c", i)),
		)
		return c.run()
	}, "/volume/place")
}
