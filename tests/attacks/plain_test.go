package attacks

import (
	"strings"
	"testing"
)

// The attacks prove nothing if the harness cannot run a container that is not attacked.
func TestContainerThatIsNotAttackedRuns(t *testing.T) {
	w := newWorld(t)
	c := w.container("plain", "cat", "/etc/passwd")
	if out, err := c.run(); err != nil || !strings.HasPrefix(out, "root:") {
		t.Fatalf("run: %v: %s", err, out)
	}
	c = w.container("long", "sleep", "1000")
	c.running()
	if out, err := c.exec(nil, "echo", "inside"); err != nil || out != "inside\n" {
		t.Fatalf("exec: %v: %s", err, out)
	}
	c.delete()
}
