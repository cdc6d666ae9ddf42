package keeper

import (
	"path/filepath"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/filesync"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/internal/wire"
)

// FuzzHello: what a source says of its container is judged, and nothing of it is believed: a volume is in a tree of its own, and no
// record makes the peer stumble.
func FuzzHello(f *testing.F) {
	testutil.Root(f)
	for _, seed := range [][2]string{
		{
			`{"root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"network","path":"/run/netns/no"}],"cgroupsPath":"/a/b","resources":{"memory":{"limit":1}}},` +
				`"mounts":[{"destination":"/data","type":"bind","source":"/no","options":["rbind"]}],"process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":9,"soft":9}]}}`,
			`{"network":{"bridge":"no","addresses":["10.0.0.5/24"],"gateways":["10.0.0.1"],"mac":"02:00:00:00:00:01"},"log_file":"/no/log",` +
				`"volumes":[{"mount":0,"tree":1}],"namespace":{"path":"/run/netns/no","links":[{"name":"eth0","type":"veth","addresses":["10.0.0.5/24"]}]}}`,
		},
		{`{"root":{},"linux":{}}`, `{"foreign":true,"created":"2026-01-02T03:04:05Z","binds":[{}],"volumes":[{"mount":-1,"tree":7,"path":"../x"}]}`},
		{`{"root":{},"linux":{"cgroupsPath":"a:b:c","resources":null},"process":null}`, `{"namespace":{},"network":{}}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]), uint8(2))
	}
	dir := f.TempDir()
	h := &host{order: &PeerOrder{Places: Places{Root: filepath.Join(dir, "run"), Bundles: filepath.Join(dir, "bundles")}}}
	opened, err := h.open()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, config, about []byte, trees uint8) {
		p := &place{host: h, runtime: opened, bundle: filepath.Join(dir, "bundles", "web"), targets: map[int]*filesync.Target{}}
		p.hello = &wire.Hello{Container: "web"}
		for range trees % 4 {
			p.hello.Trees = append(p.hello.Trees, &wire.Tree{Name: "tree"})
		}
		var err error
		if p.spec, err = decode[specs.Spec]("config.json", config); err != nil || p.spec.Root == nil || p.spec.Linux == nil {
			return
		}
		if p.identity, err = decode[identity]("identity", about); err != nil {
			return
		}
		p.giveLog()
		a, err := p.arrival()
		if err != nil {
			return
		}
		for _, v := range p.identity.Volumes {
			if !a.Travels[v.Mount] || v.Tree >= len(p.hello.Trees) || v.Path != "" && !filepath.IsLocal(v.Path) {
				t.Errorf("%+v travels", v)
			}
		}
		_, _ = preflight.Arrive(a), canFeed(p.spec)
		_ = p.hostOptions(a.Needs)
	})
}
