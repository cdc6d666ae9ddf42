package criu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestMountIsNamedByWhereItReallyIs(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "run/lock"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"var": "/run", "out": "../../../../etc"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for destination, want := range map[string]string{
		"/run/lock": "/run/lock", "/var/lock": "/run/lock", "run//x/": "/run/x", "/out/hosts": "/etc/hosts", "/": "",
	} {
		if got, err := MountKey(root, destination); err != nil || got != want {
			t.Errorf("%s: got %q, want %q, %v", destination, got, want, err)
		}
	}
}

func TestExternalNamespacesHaveRuncsNames(t *testing.T) {
	for kind, want := range map[specs.LinuxNamespaceType]string{
		specs.NetworkNamespace: "net[42]:extRootNetNS", specs.PIDNamespace: "pid[42]:extRootPidNS",
	} {
		if got := ExternalNamespace(kind, 42); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if key := NamespaceKey(specs.IPCNamespace); key != "" {
		t.Errorf("ipc is joined by path, not inherited: %q", key)
	}
}

func TestCgroupModes(t *testing.T) {
	for mode, want := range map[string]CgroupMode{
		"": rpc.CriuCgMode_PROPS, "soft": rpc.CriuCgMode_SOFT, "full": rpc.CriuCgMode_FULL,
		"strict": rpc.CriuCgMode_STRICT, "ignore": rpc.CriuCgMode_IGNORE,
	} {
		if got, err := ParseCgroupMode(mode, rpc.CriuCgMode_PROPS); err != nil || got != want {
			t.Errorf("%q: %v, %v", mode, got, err)
		}
	}
	if _, err := ParseCgroupMode("hard", rpc.CriuCgMode_SOFT); err == nil {
		t.Error("an unknown mode is accepted")
	}
}
