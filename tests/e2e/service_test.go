package e2e

import (
	"net"
	"testing"
)

// The directory of its socket is neither a volume of its user's nor anything that the peer must have.
func TestServiceMovesWithItsNotifySocket(t *testing.T) {
	w := newWorld(t)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.A.Path("/srv/manager"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := w.A.Bundle(w.ctx, "workload", "/srv/bundles/service", "tree"); err != nil {
		t.Fatal(err)
	}
	err = w.A.Start(w.ctx, "env", "NOTIFY_SOCKET=/srv/manager", "migrate", "run", "--detach", "--log-file", "/srv/service.log",
		"--bundle", "/srv/bundles/service", "--network", "bridge=br0,address="+containerIP+"/24", "service")
	if err != nil {
		t.Fatal(err)
	}
	c := w.checkWorkload()
	w.push(w.A, "--volumes", "refuse", "service", w.tls(w.B)).moved()
	if now := w.where("service"); now != w.B {
		t.Errorf("it runs on %s", now.Name)
	}
	c.unharmed()
	w.push(w.B, "--volumes", "refuse", "service", w.tls(w.A)).moved() // the peer knows of it, too
	c.unharmed()
}
