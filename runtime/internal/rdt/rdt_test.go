package rdt

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// fake is a directory tree in place of the filesystem, of a machine with two caches.
func fake(t *testing.T, without ...string) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"info/last_cmd_status": "ok\n",
		"info/L3/cbm_mask":     "fffff\n", "info/L3/min_cbm_bits": "2\n", "info/L3/num_closids": "16\n",
		"info/MB/bandwidth_gran": "10\n", "info/MB/delay_linear": "1\n", "info/MB/min_bandwidth": "20\n", "info/MB/num_closids": "8\n",
		"info/L3_MON/mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n",
	}
	for path, text := range files {
		write(t, filepath.Join(root, path), text)
	}
	populate(t, root)
	for _, name := range without {
		must(t, os.RemoveAll(filepath.Join(root, name)))
	}
	return root
}

// populate makes the files that the kernel makes in each group.
func populate(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "schemata"), "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n")
	write(t, filepath.Join(dir, "tasks"), "")
	if filepath.Base(filepath.Dir(dir)) != "mon_groups" {
		must(t, os.MkdirAll(filepath.Join(dir, "mon_groups"), 0o755))
	}
	for i, cache := range []string{"mon_L3_00", "mon_L3_01"} {
		write(t, filepath.Join(dir, "mon_data", cache, "llc_occupancy"), []string{"1024\n", "Unavailable\n"}[i])
		write(t, filepath.Join(dir, "mon_data", cache, "mbm_total_bytes"), "2048\n")
		write(t, filepath.Join(dir, "mon_data", cache, "mbm_local_bytes"), "512\n")
	}
}

func newGroup(t *testing.T, root, id string, spec *specs.LinuxIntelRdt) *Group {
	t.Helper()
	if err := Check(spec, root); err != nil {
		t.Fatal(err)
	}
	g := New(root, id, spec)
	asKernel(t, g)
	return g
}

func asKernel(t *testing.T, g *Group) {
	g.mkdir = func(path string) error {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		populate(t, path)
		return nil
	}
	g.rmdir = func(path string) error {
		if _, err := os.Stat(path); err != nil {
			return err
		}
		return os.RemoveAll(path)
	}
}

func TestGroupIsMadeEnteredAndGoneWithItsContainer(t *testing.T) {
	root := fake(t)
	spec := &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f;1=f0", MemBwSchema: "MB:0=20;1=70", EnableMonitoring: true}
	g := newGroup(t, root, "box", spec)
	must(t, g.Make())
	must(t, g.Add(4711))
	if got := read(t, root+"/box/schemata"); got != "L3:0=f;1=f0\nMB:0=20;1=70\n" {
		t.Errorf("schemata: %q", got)
	}
	for _, tasks := range []string{"/box/tasks", "/box/mon_groups/box/tasks"} {
		if got := read(t, root+tasks); got != "4711\n" {
			t.Errorf("%s: %q", tasks, got)
		}
	}
	// Another process knows it by its place alone.
	again := Open(root, g.Place(), spec)
	asKernel(t, again)
	must(t, again.Set(&specs.LinuxIntelRdt{L3CacheSchema: "L3:0=3"}))
	if got := read(t, root+"/box/schemata"); got != "L3:0=3\n" {
		t.Errorf("schemata after Set: %q", got)
	}
	for range 2 {
		must(t, again.Remove())
	}
	if _, err := os.Stat(root + "/box"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group is left: %v", err)
	}
}

func TestGroupOfOthersIsJoinedAndStays(t *testing.T) {
	root := fake(t)
	populate(t, root+"/gold")
	for name, spec := range map[string]*specs.LinuxIntelRdt{
		"named":                  {ClosID: "gold", EnableMonitoring: true},
		"named, with shares":     {ClosID: "gold", Schemata: []string{"MB:0=50"}},
		"named, made by us":      {ClosID: "silver", Schemata: []string{"MB:0=50"}},
		"of the container's id":  {},
		"the root of all groups": {ClosID: "/"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(t, root, "gold", spec)
			must(t, g.Make())
			must(t, g.Add(1))
			must(t, g.Remove())
			if _, err := os.Stat(g.Place().Path + "/tasks"); err != nil {
				t.Errorf("the group is gone: %v", err)
			}
			if _, err := os.Stat(root + "/gold/mon_groups/gold"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the monitoring group is left: %v", err)
			}
		})
	}
}

func TestGroupThatCannotBeMadeLeavesNothing(t *testing.T) {
	root := fake(t)
	write(t, root+"/info/last_cmd_status", "Mask out of range\n")
	for _, class := range []string{"", "silver"} {
		g := newGroup(t, root, "box", &specs.LinuxIntelRdt{ClosID: class, L3CacheSchema: "L3:0=fffffff"})
		populated := g.mkdir
		g.mkdir = func(path string) error { // the kernel refuses the write
			return errors.Join(populated(path), os.Remove(path+"/schemata"))
		}
		if err := g.Make(); err == nil || !strings.Contains(err.Error(), "last_cmd_status: Mask out of range") {
			t.Errorf("class %q: error is %v", class, err)
		}
		if _, err := os.Stat(g.Place().Path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("class %q: the group is left: %v", class, err)
		}
	}
	err := newGroup(t, root, "box", &specs.LinuxIntelRdt{ClosID: "missing"}).Make()
	if err == nil || !strings.Contains(err.Error(), "must be pre-created") {
		t.Errorf("a class without shares that is not there: %v", err)
	}
}

func TestGroupOfOthersStaysWhenItCannotBeJoined(t *testing.T) {
	root := fake(t)
	populate(t, root+"/gold/mon_groups/box") // whose it is, nobody knows
	populate(t, root+"/gold")
	must(t, os.Remove(root+"/gold/schemata"))
	g := newGroup(t, root, "box", &specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f", EnableMonitoring: true})
	if err := g.Make(); err == nil {
		t.Error("shares were written to no file")
	}
	if _, err := os.Stat(root + "/gold/mon_groups/box/tasks"); err != nil {
		t.Errorf("what was there before is gone: %v", err)
	}
}

// What is relative would be looked for below the working directory.
func TestWithoutTheFilesystemAGroupCanOnlyBeRemoved(t *testing.T) {
	t.Chdir(fake(t))
	g := New("", "box", &specs.LinuxIntelRdt{})
	if err := g.Make(); !errors.Is(err, errNotMounted) {
		t.Errorf("Make: %v", err)
	}
	g = Open("", Place{Path: t.TempDir() + "/box", Owned: true}, &specs.LinuxIntelRdt{})
	if _, err := g.Stats(); !errors.Is(err, errNotMounted) {
		t.Errorf("Stats: %v", err)
	}
	if err := g.Add(1); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "last_cmd_status") {
		t.Errorf("Add: %v", err)
	}
	must(t, g.Remove())
}

func TestEveryThreadOfAProcessIsMoved(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mkfifo(dir+"/tasks", 0o600)) // as the kernel's file, it is not emptied by opening it
	tasks, err := os.OpenFile(dir+"/tasks", os.O_RDWR, 0)
	must(t, err)
	defer tasks.Close()
	must(t, tasks.SetReadDeadline(time.Now().Add(10*time.Second)))
	must(t, Open(dir, Place{Path: dir}, nil).AddProcess(os.Getpid()))
	buf := make([]byte, 1<<16)
	n, err := tasks.Read(buf)
	must(t, err)
	got := strings.Fields(string(buf[:n]))
	if len(got) < 2 || !slices.Contains(got, strconv.Itoa(os.Getpid())) { // a Go program has several threads
		t.Errorf("threads %v of process %d were moved", got, os.Getpid())
	}
	must(t, Open(dir, Place{Path: dir}, nil).AddProcess(1<<22)) // there is none
}

func TestCheckNamesWhatTheMachineLacks(t *testing.T) {
	root := fake(t)
	tests := []struct {
		name string
		spec *specs.LinuxIntelRdt
		root string
		want string // "": fine
	}{
		{"not asked for", nil, "", ""},
		{"everything", &specs.LinuxIntelRdt{ClosID: "a", L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=10", EnableMonitoring: true}, root, ""},
		{"not mounted", &specs.LinuxIntelRdt{}, "", "Intel RDT is not enabled"},
		{"above", &specs.LinuxIntelRdt{ClosID: ".."}, root, "invalid intelRdt.ClosID"},
		{"below", &specs.LinuxIntelRdt{ClosID: "a/b"}, root, "invalid intelRdt.ClosID"},
		{"the kernel's directory", &specs.LinuxIntelRdt{ClosID: "info"}, root, "invalid intelRdt.ClosID"},
		{"the root", &specs.LinuxIntelRdt{ClosID: "/"}, root, ""},
		{"no CAT", &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"}, fake(t, "info/L3"), "Intel RDT/CAT is not enabled"},
		{"no MBA", &specs.LinuxIntelRdt{MemBwSchema: "MB:0=10"}, fake(t, "info/MB"), "Intel RDT/MBA is not enabled"},
		{"no monitoring", &specs.LinuxIntelRdt{EnableMonitoring: true}, fake(t, "info/L3_MON"), "monitoring is not enabled"},
		{"two lines in one", &specs.LinuxIntelRdt{Schemata: []string{"L3:0=f\nMB:0=10"}}, root, "more than one line"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(tt.spec, tt.root)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Check: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestStatsAreThoseOfRunc(t *testing.T) {
	g := newGroup(t, fake(t), "box", &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f;1=f0", EnableMonitoring: true})
	must(t, g.Make())
	stats, err := g.Stats()
	must(t, err)
	got, err := json.Marshal(stats)
	must(t, err)
	want := `{"l3_cache_info":{"cbm_mask":"fffff","min_cbm_bits":2,"num_closids":16},"l3_cache_schema_root":"L3:0=fffff;1=fffff",` +
		`"l3_cache_schema":"L3:0=f;1=f0","mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":20,"num_closids":8},` +
		`"mem_bw_schema_root":"MB:0=100;1=100","schemata":["L3:0=f;1=f0"],` +
		`"mbm_stats":[{"mbm_total_bytes":2048,"mbm_local_bytes":512},{"mbm_total_bytes":2048,"mbm_local_bytes":512}],` +
		`"cmt_stats":[{"llc_occupancy":1024},{"llc_occupancy":0}]}`
	if string(got) != want {
		t.Errorf("stats:\n%s\nwant:\n%s", got, want)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
