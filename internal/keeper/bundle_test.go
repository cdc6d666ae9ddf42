package keeper

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// A set-user-ID program of a container is out of reach for the host's users, also where the bundle was open before.
func TestReceivedBundleIsClosed(t *testing.T) {
	testutil.Root(t)
	maps := []specs.LinuxIDMapping{{HostID: 200000, Size: 65536}}
	plan := func(namespaces ...specs.LinuxNamespace) *runtime.Plan {
		return &runtime.Plan{Spec: &specs.Spec{Linux: &specs.Linux{Namespaces: namespaces, UIDMappings: maps, GIDMappings: maps}}}
	}
	for name, c := range map[string]struct {
		there bool
		plan  *runtime.Plan
		mode  os.FileMode
		group uint32
	}{
		"a new one":           {false, plan(), 0o700, 0},
		"one that was open":   {true, plan(), 0o700, 0},
		"of a user namespace": {true, plan(specs.LinuxNamespace{Type: specs.UserNamespace}), 0o710, 200000},
	} {
		p := &place{bundle: filepath.Join(t.TempDir(), "bundles", "web"), hello: &wire.Hello{Container: "web"}, identity: &identity{}}
		if c.there {
			if err := os.MkdirAll(p.bundle, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.makeBundle(); err != nil || p.fresh == c.there {
			t.Errorf("%s: new %v, %v", name, p.fresh, err)
		}
		if info, err := os.Stat(p.bundle); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: while files come %v, %v", name, info.Mode(), err)
		}
		if err := p.closeBundle(c.plan); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		info, err := os.Stat(p.bundle)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != c.mode || st.Uid != 0 || st.Gid != c.group {
			t.Errorf("%s: %v of %d:%d, want %v of 0:%d", name, info.Mode(), st.Uid, st.Gid, c.mode, c.group)
		}
	}
}
