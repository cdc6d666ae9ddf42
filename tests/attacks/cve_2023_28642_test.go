package attacks

import "testing"

// CVE-2023-28642: the same with /sys, and with both: a read-only path or a mask of /sys is then one of nothing.
func TestCVE_2023_28642_SysIsNoLink(t *testing.T) {
	for name := range links(&world{}) {
		t.Run(name, func(t *testing.T) {
			w := linkedWorld(t)
			c := w.withProcLink("sys", links(w)[name])
			out, err := c.run()
			if err == nil {
				t.Errorf("the container started: %s", out)
			}
			wantRefusal(t, out, linkRefusals("/sys")...)
			c.checkMounts(err)
			checkFalseProc(t, w.volume("place"))
		})
	}
	t.Run("proc and sys for each other", func(t *testing.T) {
		w := linkedWorld(t)
		c := w.withProcLink("proc", "sys")
		out, err := c.run()
		if err == nil {
			t.Errorf("the container started: %s", out)
		}
		wantRefusal(t, out, linkRefusals("/proc")...)
		c.checkMounts(err)
	})
}
