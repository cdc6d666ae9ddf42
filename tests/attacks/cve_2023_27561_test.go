package attacks

import "testing"

// CVE-2023-27561: what came of CVE-2019-19921 a second time, when the destination was resolved before it was compared: an
// image has a link for /proc, the procfs is mounted where it leads, and /proc/self/attr and everything that should be
// masked is what a volume holds. Nothing is exchanged here: the link alone did it, whatever it leads to.
func TestCVE_2023_27561_ProcIsNoLink(t *testing.T) {
	for name := range links(&world{}) {
		t.Run(name, func(t *testing.T) {
			w := linkedWorld(t)
			c := w.withProcLink("proc", links(w)[name])
			out, err := c.run()
			if err == nil {
				t.Errorf("the container started: %s", out)
			}
			wantRefusal(t, out, linkRefusals("/proc")...)
			c.checkMounts(err)
			checkFalseProc(t, w.volume("place"))
		})
	}
}
