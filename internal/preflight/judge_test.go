package preflight

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/memory/track"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/internal/wire"
	"github.com/livemigrate/migrate/runtime"
)

// able is a host that lacks nothing.
func able() *machine {
	return &machine{
		root: true, capabilities: ^process.Capabilities(1 << process.SysResource), tracker: track.WriteProtect, // all but CAP_SYS_RESOURCE
		files: 20000, perProcess: 1 << 20, allFiles: 1 << 30, pipe: 4 << 20, processes: 4 << 20, allProcesses: 1 << 20,
		available: 8 << 30, spool: 4 << 30,
	}
}

func TestHostIsJudged(t *testing.T) {
	needs := Needs{Processes: 100, Threads: 200, Memory: 2 << 30, Copied: 1 << 20, PipeSize: 1 << 20}
	for name, c := range map[string]struct {
		edit     func(*machine, *HostOptions)
		severity Severity
		code     Code
	}{
		"nothing wrong":             {func(*machine, *HostOptions) {}, Note, Tracker},
		"not root":                  {func(m *machine, _ *HostOptions) { m.root = false }, Blocker, Privileges},
		"too few capabilities":      {func(m *machine, _ *HostOptions) { m.capabilities = 0 }, Blocker, Privileges},
		"nobody traces":             {func(m *machine, _ *HostOptions) { m.noTracing = true }, Blocker, Tracing},
		"no tracker":                {func(m *machine, _ *HostOptions) { m.tracker = track.None }, Warning, Tracker},
		"no tracker, small spool":   {func(m *machine, _ *HostOptions) { m.tracker, m.spool = track.None, 1<<30 }, Warning, Tracker},
		"no engine":                 {func(_ *machine, o *HostOptions) { o.Feed = false }, Warning, Tracker},
		"no feeding":                {func(m *machine, _ *HostOptions) { m.impossible = errors.New("no userfaultfd") }, Warning, Userfaultfd},
		"no feeding, but post-copy": {func(m *machine, o *HostOptions) { m.impossible, o.Follows = errors.New("no userfaultfd"), true }, Blocker, Userfaultfd},
		"few files":                 {func(m *machine, _ *HostOptions) { m.files = 300 }, Blocker, OpenFiles},
		"few files at the source":   {func(m *machine, o *HostOptions) { m.files, o.Role = 300, Source }, Warning, OpenFiles},
		"a full table of files":     {func(m *machine, _ *HostOptions) { m.allFiles, m.usedFiles = 1000, 900 }, Blocker, OpenFiles},
		"small pipes":               {func(m *machine, _ *HostOptions) { m.pipe = 1 << 19 }, Blocker, PipeSize},
		"pipes a bit small":         {func(m *machine, _ *HostOptions) { m.pipe = 1 << 20 }, Warning, PipeSize},
		"images do not fit":         {func(m *machine, _ *HostOptions) { m.spool = 1 << 10 }, Blocker, ImageSpace},
		"images of all do not fit":  {func(m *machine, o *HostOptions) { m.spool, o.Feed = 1<<30, false }, Blocker, ImageSpace},
		"memory does not fit":       {func(m *machine, _ *HostOptions) { m.available = 1 << 30 }, Blocker, MemorySpace},
		"too many threads":          {func(m *machine, _ *HostOptions) { m.processes = 100 }, Blocker, ProcessLimit},
	} {
		t.Run(name, func(t *testing.T) {
			m, o := able(), &HostOptions{Role: Source | Peer, Feed: true, Spool: "/run"}
			c.edit(m, o)
			found := m.judge(o, &needs)
			if !has(found, c.severity, c.code) {
				t.Errorf("no %s %s: %v", c.severity, c.code, found)
			}
			if more := found.Of(Blocker); c.severity == Blocker && len(more) != 1 || c.severity != Blocker && len(more) > 0 {
				t.Errorf("blockers: %v", more)
			}
		})
	}
	// The limits of pipes do not bind a process with CAP_SYS_RESOURCE.
	m := able()
	m.capabilities, m.pipe = ^process.Capabilities(0), 4096
	if found := m.judge(&HostOptions{Role: Source | Peer, Feed: true}, &needs); len(found.Of(Blocker)) > 0 {
		t.Errorf("with CAP_SYS_RESOURCE: %v", found)
	}
}

// This host's own limits are read, by a process that has few.
func TestHostReadsItsLimits(t *testing.T) {
	testutil.Root(t)
	found, err := Host(t.Context(), &HostOptions{Role: Source | Peer, Feed: true, Spool: t.TempDir() + "/not/there/yet", Needs: &Needs{Memory: 1 << 60}})
	if err != nil {
		t.Fatal(err)
	}
	if !has(found, Blocker, MemorySpace) || has(found, Blocker, OpenFiles) {
		t.Errorf("%v", found)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -n 200; exec \"$0\"", os.Args[0])
	cmd.Env = append(os.Environ(), oddity+"=limited", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "200 open files are allowed to a process") {
		t.Errorf("with few: %s, %v", out, err)
	}
}

// A CRIU that asks TCP sockets for what this kernel does not tell is of no use; on another kernel it is.
func TestOldCRIUIsJudgedByTheKernel(t *testing.T) {
	for _, c := range []struct {
		version string
		tells   bool
		blocked bool
	}{{"4.1.1", false, true}, {"4.1.1", true, false}, {"4.2.1", false, false}, {"4.3", false, false}, {"unknown", false, false}} {
		if found := judgeCRIU(ParseVersion(c.version), "criu", c.tells); found.Blocked() != c.blocked {
			t.Errorf("%+v: %v", c, found)
		}
	}
	client, _, found := CRIU(t.Context(), "/no/such/criu", nil)
	if client != nil || !has(found, Blocker, CRIUMissing) {
		t.Errorf("without one: %v", found)
	}
}

func fifoIn(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPeerIsJudged(t *testing.T) {
	dir := t.TempDir()
	library, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := fifoIn(t)
	bind := specs.Mount{Destination: "/data", Type: "bind", Source: "/no/such/volume"}
	for name, c := range map[string]struct {
		edit func(*Arrival)
		code Code // "" for none
	}{
		"nothing wrong": {func(*Arrival) {}, ""},
		"no bridge": {func(a *Arrival) {
			a.Network = &link.Config{Bridge: "no-such-bridge", Addresses: []string{"10.0.0.1/24"}}
		}, Bridge},
		"no volume": {func(a *Arrival) { a.Spec.Mounts = []specs.Mount{bind} }, BindMount},
		"a volume that the source has not seen": {func(a *Arrival) {
			a.Spec.Mounts = []specs.Mount{{Destination: "/data", Type: "bind", Source: dir}}
		}, BindMount},
		"a volume that comes":  {func(a *Arrival) { a.Spec.Mounts, a.Travels = []specs.Mount{bind}, map[int]bool{0: true} }, ""},
		"no room":              {func(a *Arrival) { a.Files = 1 << 60 }, DiskSpace},
		"no directory for log": {func(a *Arrival) { a.LogFile = "/no/such/directory/log" }, LogFile},
		"a directory for log":  {func(a *Arrival) { a.LogFile = filepath.Join(dir, "log") }, ""},
		"a log that is there":  {func(a *Arrival) { a.LogFile = there }, ""},
		"a directory as log":   {func(a *Arrival) { a.LogFile = dir }, LogFile},
		"a missing file":       {func(a *Arrival) { a.Needs.Files = []File{{Path: dir + "/none", Inside: "/lib/x"}} }, FileMissing},
		"another size":         {func(a *Arrival) { a.Needs.Files = []File{{Path: there, Size: 5}} }, FileDiffers},
		"the same size":        {func(a *Arrival) { a.Needs.Files = []File{{Path: there, Size: 4}} }, ""},
		"an address":           {func(a *Arrival) { a.Needs.Addresses = []string{"192.0.2.77"} }, HostNetwork},
		"our address":          {func(a *Arrival) { a.Needs.Addresses = []string{"127.0.0.1"} }, ""},
		"a pipe":               {func(a *Arrival) { a.Needs.Files = []File{{Path: fifo, BuildID: "00"}} }, FileDiffers},
		"a device":             {func(a *Arrival) { a.Needs.Files = []File{{Path: "/dev/null", BuildID: "00"}} }, FileDiffers},
		"another build": {func(a *Arrival) {
			a.Needs.Files = []File{{Path: "/proc/self/exe", Size: int64(len(library)), BuildID: "00"}}
		}, FileDiffers},
	} {
		t.Run(name, func(t *testing.T) {
			a := &Arrival{Spec: &specs.Spec{}, Needs: &Needs{}, Bundles: filepath.Join(dir, "not", "there")}
			c.edit(a)
			found := Arrive(a)
			if c.code == "" && len(found) > 0 || c.code != "" && !has(found, Blocker, c.code) {
				t.Errorf("%v, want %q", found, c.code)
			}
		})
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	// A file that is open to be written may grow while both hosts look.
	if found := judgeFiles([]File{{Path: there, Size: 5, Writable: true}}); !has(found, Warning, FileDiffers) || found.Blocked() {
		t.Errorf("a file that grows: %v", found)
	}
}

// What can change meanwhile is said so, also of a file that is mapped before it is met among the open ones.
func TestFilesThatMayGrowAreMarked(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"library", "database", "index", "log"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &container{subject: &Subject{Binds: map[string]string{"/data": dir}}, processes: []*proc{
		{mappings: []mapping{{name: "/data/library"}, {name: "/data/database"}, {name: "/data/index", shared: true}}},
		{descriptors: []openFile{{link: "/data/database"}, {link: "/data/log"}, {link: "/elsewhere"}}},
	}}
	got := make(map[string]bool)
	for _, f := range c.files() {
		got[f.Inside] = f.Writable
	}
	want := map[string]bool{"/data/library": false, "/data/database": true, "/data/index": true, "/data/log": true}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if id := buildID(fifoIn(t)); id != "" {
		t.Errorf("a pipe has the build %q", id)
	}
}

// A deleted file is copied in the stop by CRIU, which has its limit, unless it goes ahead.
func TestDeletedFilesAreJudged(t *testing.T) {
	large := ghost{device: 1, inode: 2, bytes: 5 << 30}
	p := &proc{descriptors: []openFile{{link: "/gone (deleted)", ghost: large}, {link: "/gone (deleted)", ghost: large}}}
	for severity, subject := range map[Severity]*Subject{Blocker: {}, Note: {Ahead: map[[2]uint64]uint64{{1, 2}: 5 << 30}}} {
		c := &container{subject: subject, processes: []*proc{p}}
		f, copied := c.judgeGhosts()
		if len(f) != 1 || !has(f, severity, DeletedFile) || (copied == 0) != (severity == Note) {
			t.Errorf("%v, want one %s; %d bytes are copied", f, severity, copied)
		}
	}
}

// A deleted file that goes ahead is read again in the stop, if somebody can write to it.
func TestDeletedFilesThatAreReadAgainAreJudged(t *testing.T) {
	for bytes, want := range map[uint64]bool{0: false, 1<<30 - 1: false, 1 << 30: true, 20 << 30: true} {
		c := &container{subject: &Subject{Reread: bytes}}
		f, copied := c.judgeGhosts()
		if has(f, Warning, DeletedFile) != want || copied != 0 {
			t.Errorf("%d bytes: %v", bytes, f)
		}
	}
}

func TestCgroupLimitsAreJudged(t *testing.T) {
	root := "/sys/fs/cgroup/memory"
	if testutil.Cgroup2Alone() {
		root = "/sys/fs/cgroup"
	}
	testutil.Root(t)
	parent := filepath.Join(root, "preflight-test")
	if err := os.Mkdir(parent, 0o755); err != nil {
		testutil.Need(t, false, "a cgroup with the memory controller: "+err.Error())
	}
	defer os.Remove(parent)
	for _, limit := range []string{"memory.limit_in_bytes", "memory.max"} {
		if _, err := os.Stat(filepath.Join(parent, limit)); err == nil {
			if err := os.WriteFile(filepath.Join(parent, limit), []byte("16777216"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	key := "memory"
	if testutil.Cgroup2Alone() {
		key = ""
	}
	a := &Arrival{Needs: &Needs{Memory: 32 << 20}, Cgroups: map[string]string{key: filepath.Join(parent, "web")}}
	if found := a.judgeLimits(); !has(found, Blocker, MemoryLimit) {
		t.Errorf("32 MB below a limit of 16: %v", found)
	}
	a.Needs.Memory = 1 << 20
	if found := a.judgeLimits(); len(found) > 0 {
		t.Errorf("1 MB below a limit of 16: %v", found)
	}
}

func TestSecurityLabelsAreJudged(t *testing.T) {
	const profiles = "docker-default (enforce)\nother (complain)\n"
	for _, c := range []struct {
		label             string
		appArmor, selinux bool
		blocked           bool
	}{
		{"docker-default (enforce)", true, false, false},
		{"unknown (enforce)", true, false, true},
		{"docker-default (enforce)", false, false, true},
		{"system_u:system_r:container_t:s0:c1,c2", false, true, false},
		{"system_u:system_r:container_t:s0:c1,c2", true, false, true},
	} {
		if found := judgeLabels([]string{c.label}, c.appArmor, profiles, c.selinux); found.Blocked() != c.blocked {
			t.Errorf("%+v: %v", c, found)
		}
	}
}

func TestConfigurationIsJudged(t *testing.T) {
	filter := &specs.LinuxSeccomp{ListenerPath: "/run/agent", Syscalls: []specs.LinuxSyscall{{Action: specs.ActNotify}}}
	plan := &runtime.Plan{Spec: &specs.Spec{Linux: &specs.Linux{Seccomp: filter}}}
	if found := judgeConfig(plan); !has(found, Blocker, SeccompNotify) {
		t.Errorf("%v", found)
	}
	filter.Syscalls = nil
	if found := judgeConfig(plan); len(found) > 0 {
		t.Errorf("nobody is notified: %v", found)
	}
}

func TestProcessIsJudged(t *testing.T) {
	for name, c := range map[string]struct {
		edit     func(*proc)
		severity Severity
		code     Code
	}{
		"waits for a disk":      {func(p *proc) { p.state = 'D' }, Warning, Uninterruptible},
		"pinned memory":         {func(p *proc) { p.pinned = 4096 }, Warning, PinnedMemory},
		"the first thread died": {func(p *proc) { p.state = 'Z' }, Blocker, DeadLeader},
		"another time":          {func(p *proc) { p.namespaces = map[string]string{"time": "a", "time_for_children": "b"} }, Blocker, NestedNamespace},
	} {
		p := &proc{pid: 7, name: "web", state: 'S'}
		c.edit(p)
		if found := p.judge(&proc{}); len(found) != 1 || !has(found, c.severity, c.code) || found[0].Pid != 7 || found[0].Process != "web" {
			t.Errorf("%s: %v", name, found)
		}
	}
}

// The names of namespaces vanish one after the other.
func TestProcessThatEndsMeanwhileIsNotJudged(t *testing.T) {
	first := &proc{namespaces: map[string]string{"time": "a", "time_for_children": "a", "uts": "b"}}
	for _, namespaces := range []map[string]string{{"time": "a", "uts": "b"}, {"time_for_children": "a"}, nil} {
		p := &proc{pid: 7, name: "sleep", state: 'S', namespaces: namespaces}
		if found := p.judge(first); len(found) > 0 {
			t.Errorf("%v: %v", namespaces, found)
		}
	}
}

func TestAnOlderKernelIsNoted(t *testing.T) {
	for _, c := range []struct {
		source, peer string
		older        bool
	}{{"6.12.1", "6.1.0", true}, {"6.1.0", "6.12.1", false}, {"6.1.9", "6.1.2", false}, {"unknown", "6.1", false}, {"6.1", "5.15", true}, {"6.1", "6.1", false}} {
		if found := Kernels(c.source, c.peer); has(found, Note, KernelOlder) != c.older || found.Blocked() {
			t.Errorf("%+v: %v", c, found)
		}
	}
}

func TestMuchSharedMemoryIsAWarning(t *testing.T) {
	if found, sum := sayCopied(map[string]uint64{sharedAnonymous: 300 << 20, tmpfsFiles: 4096}); !has(found, Warning, CopiedMemory) || sum != 300<<20+4096 {
		t.Errorf("%d, %v", sum, found)
	}
	if found, _ := sayCopied(map[string]uint64{tmpfsFiles: 4096}); len(found) > 0 {
		t.Errorf("a page: %v", found)
	}
}

func TestSocketTablesAreRead(t *testing.T) {
	for line, want := range map[string][2]string{
		"  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1":                                    {"127.0.0.1", "4711"},
		"  1: B80D01200000000000000000010000A0:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12 1": {"2001:db8::a000:1", "12"},
		"  sl  local_address": {"invalid IP", ""},
	} {
		if s := parseSocket(line); s.local.String() != want[0] || s.inode != want[1] {
			t.Errorf("%q: %+v", line, s)
		}
	}
}

// What crosses hosts comes out as it went in, and its size is bounded.
func TestNeedsCrossHosts(t *testing.T) {
	n := &Needs{Processes: 1, Threads: 2, Memory: 3, Copied: 4, PipeSize: 5, Labels: []string{"a"}, Addresses: []string{"b"}}
	for range 3 * maxFiles {
		n.Files = append(n.Files, File{Path: strings.Repeat("p", 4000), Size: 6, BuildID: "c", Writable: true})
	}
	w := n.ToWire()
	total := 0
	for _, f := range w.GetFiles() {
		total += len(f.GetPath())
	}
	back := NeedsFromWire(w)
	if total > filesBudget || back.Files[0] != n.Files[0] || back.Memory != 3 || back.PipeSize != 5 {
		t.Errorf("%d bytes of names, %+v", total, back)
	}
	f := Findings{{Severity: Blocker, Code: string(IDTaken), Text: "t", Pid: 3, Process: "p", Cure: "c"}}
	if got := fromWire(f.ToWire()); !slices.Equal(got, f) || !errors.Is(f.Refusal(), wire.ErrExists) || f.Of(Note).Refusal() != nil {
		t.Errorf("%v", got)
	}
}

// fromWire is what crossed, as it was before.
func fromWire(all []*wire.Finding) Findings {
	var f Findings
	for _, w := range all {
		f = append(f, Finding{
			Severity: Severity(w.GetSeverity()), Code: w.GetCode(), Text: w.GetText(),
			Pid: int(w.GetPid()), Process: w.GetProcess(), Cure: w.GetCure(),
		})
	}
	return f
}

// Users look a code up.
func TestEveryCodeIsInTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[Code]bool)
	for _, code := range Codes() {
		if !strings.Contains(string(text), "`"+string(code)+"`") {
			t.Errorf("docs/operations.md does not explain %s", code)
		}
		if seen[code] {
			t.Errorf("%s twice", code)
		}
		seen[code] = true
	}
	source, err := os.ReadFile("code.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), "Code = \""); n != len(Codes()) {
		t.Errorf("%d codes are declared, %d listed", n, len(Codes()))
	}
}
