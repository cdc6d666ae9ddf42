package e2e

import (
	"flag"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// resumed is the size of the container whose link breaks while its memory is sent.
var resumed = flag.Int("resume", 80, "MB of memory of the container of the test of resumed rounds")

// The link breaks when most of the memory has been sent: what the peer has is not sent again, all of it is right, and the stop is
// not longer for it.
func TestMemoryGoesOnWhereALinkHasBroken(t *testing.T) {
	w := newWorld(t)
	w.run(w.A, "big", "workload", "memory", "--rate", "2000", strconv.Itoa(*resumed))
	c := w.checkWorkload()
	at := w.A
	all := int64(*resumed) << 20
	for _, cuts := range []int{0, 2} {
		to := w.other(at)
		p := w.push(at, "--mode", "pre-copy", "--bandwidth-limit", strconv.Itoa(*resumed)+"MB/s", "big", w.ssh(to))
		p.until("precopy")
		for cut := range cuts {
			for p.Sent() < all*int64(4+3*cut)/10 {
				select {
				case <-p.Ended():
					t.Fatalf("push ended early: %s", p.result.Error)
				case <-time.After(time.Millisecond):
				}
			}
			for _, pid := range at.Named("ssh") {
				_ = syscall.Kill(pid, syscall.SIGKILL) // the end of one may have ended the next
			}
			time.Sleep(50 * time.Millisecond)
		}
		p.moved()
		sent := int64(p.result.BytesSent)
		stop := int64(0)
		for _, round := range p.result.Rounds {
			if round.Frozen {
				stop += round.Bytes
			}
		}
		t.Logf("%d cuts: away for %.0f ms, %d MB sent in %.1f s, %d kB of them in the stop", cuts, p.result.DowntimeMS, sent>>20,
			p.result.TotalMS/1000, stop>>10)
		// What has been written meanwhile goes again as well. From nothing it would be twice as much.
		if most := all * 3 / 2; sent > most {
			t.Errorf("%d cuts: %d MB were sent, at most %d are needed", cuts, sent>>20, most>>20)
		}
		if stop > all/4 {
			t.Errorf("%d cuts: %d MB were sent in the stop, at most %d are needed", cuts, stop>>20, all>>22)
		}
		at = to
		if now := w.where("big"); now != at {
			t.Fatalf("%d cuts: it runs on %s", cuts, now.Name)
		}
		c.unharmed()
	}
}
