package attacks

import (
	"os"
	"testing"
)

// CVE-2019-19921: the link for /proc leads through a volume where another container exchanges a directory for a link in a
// loop, so that the place that is checked is not the place that is mounted on.
func TestCVE_2019_19921_ProcLeadsThroughAVolumeThatChanges(t *testing.T) {
	w := linkedWorld(t)
	must(t, os.Symlink("../proc-of-the-image", w.volume("other")))
	c := w.withProcLink("proc", "/volume/place")
	must(t, os.Mkdir(c.rootfs+"/proc-of-the-image", 0o755))
	defer func() { // one of the two is the link
		checkFalseProc(t, w.volume("place"))
		checkFalseProc(t, w.volume("other"))
	}()
	defer w.swap(w.volume("place"), w.volume("other"))()
	raced(t, 0, func(int) (string, error) {
		out, err := c.run()
		c.checkMounts(err)
		if err == nil {
			t.Errorf("the container started: %s", out)
		}
		return out, err
	}, linkRefusals("/proc")...)
}
