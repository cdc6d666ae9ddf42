package doors

import (
	"os"
	"strings"
)

// Over ssh a key that may do nothing but send containers sends one, and runs nothing else, whatever its owner asks for.
func forcedCommand(w *world) {
	t := w.t
	keys := "/srv/authorized_keys" // in place of the host's own, as sshd's option says
	public, err := w.A.Run(w.ctx, "cat", "/etc/ssh/root_key.pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.B.Path(keys), []byte(`restrict,command="migrate receive" `+public), 0o600); err != nil {
		t.Fatal(err)
	}
	err = w.B.Start(w.ctx, "/usr/sbin/sshd", "-o", "AuthorizedKeysFile="+keys, "-o", "PidFile=/srv/forced.pid", "-p", "2222",
		"-f", "/etc/ssh/sshd_config")
	if err != nil {
		t.Fatal(err)
	}
	w.run(w.A, "forced", "10.77.0.104")
	if code, result := w.push(w.A, "forced", "ssh://root@"+w.B.IP+":2222"); code != 0 {
		t.Fatalf("push exits with %d: %s", code, result.Error)
	}
	if out, err := w.B.Run(w.ctx, "migrate", "state", "forced"); err != nil || !strings.Contains(out, `"running"`) {
		t.Errorf("at the peer: %s, %v", out, err)
	}
	if info, err := os.Stat(w.B.Path("/srv/bundles/forced")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the received bundle is open: %v, %v", info, err)
	}

	// The other end speaks migrate's protocol, and closes on whoever does not.
	out, err := w.A.Run(w.ctx, "timeout", "20", "sh", "-c", "echo | ssh -p 2222 root@"+w.B.IP+" 'touch /srv/owned; echo owned'")
	if err == nil || strings.Contains(out, "owned") {
		t.Errorf("another command: %q, %v", out, err)
	}
	if _, err := os.Stat(w.B.Path("/srv/owned")); !os.IsNotExist(err) {
		t.Error("another command was run")
	}
}
