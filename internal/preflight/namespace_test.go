package preflight

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
)

// A namespace that is there is about to be cut off: it may be the one that was prepared, and nobody else's.
func TestArrivalFindsWhoUsesItsNamespace(t *testing.T) {
	testutil.Root(t)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	path := t.TempDir() + "/netns/web"
	if err := netns.Bind(ns, "/", path[1:]); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netns.Unbind(path) }()
	a := &Arrival{
		Spec:      &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: path}}}},
		Namespace: &netspace.Record{Path: path},
	}
	if f := a.judgeNamespace(); len(f) > 0 {
		t.Errorf("nobody uses it: %v", f)
	}
	user := exec.Command("sleep", "100")
	if err := netns.Do(ns, func() error {
		listener, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return err
		}
		defer listener.Close()
		file, err := listener.(*net.UDPConn).File()
		if err != nil {
			return err
		}
		defer file.Close()
		user.ExtraFiles = []*os.File{file}
		return user.Start()
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = user.Process.Kill(); _ = user.Wait() }()
	f := a.judgeNamespace()
	if len(f) != 1 || f[0].Severity != Blocker || f[0].Pid != user.Process.Pid || !strings.Contains(f[0].Text, "cut off") {
		t.Errorf("a process uses it: %+v", f)
	}
}
