package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A drop-in is found by the name of what it stands in for, by a link.
func TestProgramCallsItselfByTheNameItIsCalledBy(t *testing.T) {
	h := newHost(t)
	link := filepath.Join(t.TempDir(), "runc")
	if err := os.Symlink(os.Args[0], link); err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) result {
		cmd := h.command(args...)
		cmd.Path, cmd.Args[0] = link, link
		return h.finish(cmd)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--version"}, "runc version "},
		{[]string{"--help"}, "runc [global options] command"},
		{[]string{"kill", "-h"}, "runc kill [command options] CONTAINER [SIGNAL]"},
	} {
		if got := call(c.args...); got.code != 0 || !strings.Contains(got.stdout, c.want) {
			t.Errorf("%v: exit code %d, stdout %q, want %q", c.args, got.code, got.stdout, c.want)
		}
	}
	log := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"run", "x"}, "runc run failed: "},
		{[]string{"create", "x"}, "runc create failed: "},
		{[]string{"state"}, link + `: "state" requires exactly 1 argument(s)`},
	} {
		got := call(append([]string{"--log", log}, c.args...)...)
		if got.code != 1 || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%v: exit code %d, stderr %q, want %q", c.args, got.code, got.stderr, c.want)
		}
	}
	if data, _ := os.ReadFile(log); !bytes.Contains(data, []byte(`msg="runc run failed: `)) {
		t.Errorf("the log has %s", data)
	}
}

// The processes that the program starts of itself are told by their first argument alone.
func TestContainerRunsUnderAnotherName(t *testing.T) {
	h := newContainerHost(t, "echo hello")
	dir, err := os.MkdirTemp("", "name") // found by the user of a container too
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"runc", "crun", "init", "kata-runtime"} {
		link := filepath.Join(dir, name)
		if err := os.Symlink(os.Args[0], link); err != nil {
			t.Fatal(err)
		}
		cmd := h.command("run", h.id(name))
		cmd.Path, cmd.Args[0] = link, link
		if got := h.finish(cmd); got.code != 0 || got.stdout != "hello\n" || got.stderr != "" {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", name, got.code, got.stdout, got.stderr)
		}
		out := filepath.Join(t.TempDir(), "log")
		cmd = h.command("run", "--detach", "--log-file", out, h.id("log-"+name))
		cmd.Path, cmd.Args[0] = link, link
		if got := h.finish(cmd); got.code != 0 || got.stderr != "" {
			t.Errorf("%s with a monitor: exit code %d, stderr %q", name, got.code, got.stderr)
		}
		eventually(t, "the output is in the log of "+name, fileHas(out, "hello"))
	}
}

func TestHelpHasTheLayoutOfRunc(t *testing.T) {
	h := newHost(t)
	for _, args := range [][]string{{"-h"}, {"--help"}, {"help"}, {"h"}, {}} {
		got := h.run(args...)
		for _, want := range []string{"NAME:\n", " - Open Container Initiative runtime", "\nUSAGE:\n", "\nVERSION:\n", "\nCOMMANDS:\n", "\nGLOBAL OPTIONS:\n"} {
			if got.code != 0 || !strings.Contains(got.stdout, want) {
				t.Errorf("%v: exit code %d, %q is missing in %s", args, got.code, want, got.stdout)
			}
		}
	}
	for _, c := range []struct {
		verb, want string
	}{
		{"run", "--bundle value, -b value  "},
		{"run", "--detach, -d  "},
		{"exec", "--additional-gids value, -g value  "},
		{"exec", "--tty, -t  "},
		{"list", `(default: "table")`},
		{"events", "(default: 5s)"},
		{"delete", "--force, -f  "},
		{"update", "--resources value, -r value  "},
		{"ps", "--format value, -f value  "},
	} {
		for _, args := range [][]string{{c.verb, "-h"}, {c.verb, "--help"}, {"help", c.verb}} {
			got := h.run(args...)
			if got.code != 0 || !strings.HasPrefix(got.stdout, "NAME:\n   ") || !strings.Contains(got.stdout, c.want) {
				t.Errorf("%v: exit code %d, %q is missing in %s", args, got.code, c.want, got.stdout)
			}
		}
	}
	for _, args := range [][]string{{"foo"}, {"foo", "-h"}, {"help", "foo"}, {"--debug", "foo", "run"}} {
		if got := h.run(args...); got.code != 3 || message(t, got.stderr) != "No help topic for 'foo'" {
			t.Errorf("%v: exit code %d, stderr %q", args, got.code, got.stderr)
		}
	}
}

func TestVersionIsTakenApartLikeRuncs(t *testing.T) {
	h := newHost(t)
	for _, flag := range []string{"--version", "-v", "-version"} {
		got := h.run(flag)
		form := `^\S+ version \d+\.\d+\.\d+\S*\n(commit: \S+\n)?spec: \d+\.\d+\.\d+\S*\ngo: go\S+\nlibseccomp: \d+\.\d+\.\d+\n$`
		if got.code != 0 || !regexp.MustCompile(form).MatchString(got.stdout) {
			t.Errorf("%s: exit code %d, %q", flag, got.code, got.stdout)
		}
	}
}

func TestLongFlagsMayHaveASingleDash(t *testing.T) {
	root := newRootCommand(&globals{}, "runc")
	for _, c := range []struct{ given, want string }{
		{"-root /r -debug list -q", "--root /r --debug list -q"},
		{"-root=/r list -format json", "--root=/r list --format json"},
		{"--root -x list", "--root -x list"},
		{"run -d -b /b x", "run -d -b /b x"},
		{"run x -detach -bundle /b", "run x --detach --bundle /b"},
		{"run -b -detach x", "run -b -detach x"}, // a value, if a strange one
		{"exec -tty -te A=b -env C=d x -tty", "exec --tty -te A=b --env C=d x -tty"},
		{"exec -e -tty x", "exec -e -tty x"},
		{"kill -all x -9", "kill --all x -9"},
		{"ps x -format", "ps x -format"},
		{"run -- -detach", "run -- -detach"},
		{"delete -force x", "delete --force x"},
		{"list -qf json", "list -qf json"},
	} {
		got, err := canonical(root, strings.Fields(c.given))
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q became %q (%v), want %q", c.given, got, err, c.want)
		}
	}
}

// What scripts and engines give to runc's verbs, by the help of runc 1.5.
func TestEveryFlagOfRuncIsKnown(t *testing.T) {
	root := newRootCommand(&globals{}, "runc")
	for name, flags := range map[string]string{
		"":           "debug log log-format root systemd-cgroup rootless",
		"checkpoint": "image-path work-path parent-path leave-running tcp-established tcp-skip-in-flight link-remap ext-unix-sk shell-job lazy-pages status-fd page-server file-locks pre-dump manage-cgroups-mode empty-ns auto-dedup",
		"create":     "bundle,b console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds",
		"delete":     "force,f",
		"events":     "interval stats",
		"exec":       "console-socket pidfd-socket cwd env,e tty,t user,u additional-gids,g process,p detach,d pid-file process-label apparmor no-new-privs cap,c preserve-fds cgroup ignore-paused",
		"kill":       "all,a",
		"list":       "format,f quiet,q",
		"ps":         "format,f",
		"restore":    "console-socket image-path work-path tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode bundle,b detach,d pid-file no-subreaper no-pivot empty-ns auto-dedup lazy-pages lsm-profile lsm-mount-context",
		"run":        "bundle,b console-socket pidfd-socket detach,d keep pid-file no-subreaper no-pivot no-new-keyring preserve-fds",
		"spec":       "bundle,b rootless",
		"update":     "resources,r blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime cpuset-cpus cpuset-mems kernel-memory kernel-memory-tcp memory cpu-idle memory-reservation memory-swap pids-limit l3-cache-schema mem-bw-schema",
	} {
		cmd := root
		if name != "" {
			cmd = verb(root, name)
		}
		for flag := range strings.FieldsSeq(flags) {
			long, short, _ := strings.Cut(flag, ",")
			if f := lookup(cmd, long); f == nil || f.Shorthand != short {
				t.Errorf("%s --%s: %+v, want the short form %q", name, long, f, short)
			}
		}
	}
}

func TestDebugNamesTheCodeAndFollowsInit(t *testing.T) {
	h := newContainerHost(t, "true")
	for _, format := range []string{"text", "json"} {
		log := filepath.Join(t.TempDir(), "log")
		got := h.run("--debug", "--log", log, "--log-format", format, "run", h.id(format))
		if got.code != 0 || got.stderr != "" {
			t.Fatalf("exit code %d, stderr %q", got.code, got.stderr)
		}
		data, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"nsexec container setup", "child process in init()", "closing the pipe", "create.go:"} {
			if !bytes.Contains(data, []byte(want)) {
				t.Errorf("%s: the log lacks %q: %s", format, want, data)
			}
		}
		if format == "json" {
			line, _, _ := bytes.Cut(data, []byte("\n"))
			fields := map[string]any{}
			if err := json.Unmarshal(line, &fields); err != nil || fields["level"] != "debug" || fields["file"] == nil {
				t.Errorf("line %s: %v", line, err)
			}
		}
	}
}

func TestAmbientCapabilityThatIsNotInheritableIsAWarning(t *testing.T) {
	h := newContainerHost(t, "true", func(s *specs.Spec) {
		list := []string{"CAP_CHOWN"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: list, Effective: list, Permitted: list, Ambient: list}
	})
	got := h.run("run", h.id("ambient"))
	if got.code != 0 || !strings.Contains(got.stderr, "can't raise ambient capability CAP_CHOWN: ") {
		t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
	}
}

// Go raises its own soft limit of open files and lowers it again when it executes another program: not the container's.
func TestOpenFilesMayBeAsManyAsTheHardLimit(t *testing.T) {
	var own syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%d %d\n", own.Max, own.Max)
	h := newContainerHost(t, "echo $(ulimit -Sn) $(ulimit -Hn)", func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: own.Max, Hard: own.Max}}
	})
	limited := func(args ...string) result {
		inner := h.command(args...)
		cmd := exec.Command("/bin/sh", append([]string{"-c", `ulimit -Sn 512; exec "$@"`, "sh"}, inner.Args...)...)
		cmd.Dir, cmd.Env = inner.Dir, inner.Env
		return h.finish(cmd)
	}
	if got := limited("run", h.id("nofile")); got.code != 0 || got.stdout != want {
		t.Errorf("run: exit code %d, limits %q, want %q: %s", got.code, got.stdout, want, got.stderr)
	}
	h.configure("sleep 100", func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: own.Max, Hard: own.Max}}
	})
	id := h.id("nofile-exec")
	limited("run", "--detach", id)
	if got := limited("exec", id, "sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn)"); got.code != 0 || got.stdout != want {
		t.Errorf("exec: exit code %d, limits %q, want %q: %s", got.code, got.stdout, want, got.stderr)
	}
}
