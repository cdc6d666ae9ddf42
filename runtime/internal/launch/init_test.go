package launch_test

import (
	"strings"
	"testing"
)

func TestInitRunsInItsOwnNamespaces(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo $$; hostname; cat /proc/1/cgroup | head -1; ip addr show lo | grep -c 'inet 127.0.0.1'; pwd; exit 7")
	status, out := b.run()
	if status != 7 {
		t.Errorf("exit status %d, want 7; output: %s", status, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 5 || lines[0] != "1" || lines[1] != "boxed" || lines[3] != "1" || lines[4] != "/" {
		t.Errorf("container printed:\n%s", out)
	}
}
