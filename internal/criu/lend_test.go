package criu

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/limits"
	"github.com/livemigrate/migrate/internal/sys/process"
	"github.com/livemigrate/migrate/internal/testutil"
)

// fakeCRIU says how it was started, and waits.
func fakeCRIU(t *testing.T) (path, said string) {
	t.Helper()
	dir := t.TempDir()
	path, said = filepath.Join(dir, "criu"), filepath.Join(dir, "said")
	script := `#!/bin/sh
{ echo "preload $LD_PRELOAD"
  for fd in /proc/self/fd/*; do echo "$fd $(readlink "$fd")"; done
  cat /proc/self/maps
} >` + said + `.new 2>/dev/null
mv ` + said + `.new ` + said + `
read line <&3
`
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path, said
}

func awaitFile(t *testing.T, path string) string {
	t.Helper()
	for range 2000 {
		if text, err := os.ReadFile(path); err == nil {
			return string(text)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("no %s", path)
	return ""
}

func openFiles(t *testing.T) (all []string) {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if link, err := os.Readlink("/proc/self/fd/" + n.Name()); err == nil {
			all = append(all, link)
		}
	}
	return all
}

// A dump's CRIU has the library, behind the descriptors that it is told of by number, where it needs that; a restore's never has.
// This process keeps nothing of it.
func TestLimitsAreLentToADumpAlone(t *testing.T) {
	testutil.Root(t)
	own, err := process.Effective()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, c := range map[string]struct {
		options StartOptions
		lent    bool
	}{
		"dump":            {StartOptions{Limits: true}, true},
		"dump with files": {StartOptions{Limits: true, Files: []*os.File{null, null}, Grip: true}, true},
		"restore":         {StartOptions{Files: []*os.File{null}, Grip: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("LD_PRELOAD", "")
			var said string
			c.options.Path, said = fakeCRIU(t)
			client, err := Start(t.Context(), &c.options)
			if err != nil {
				t.Fatal(err)
			}
			text := awaitFile(t, said)
			if got := strings.Contains(strings.Join(openFiles(t), " "), "migrate-limits"); got {
				t.Error("this process still has the library")
			}
			if err := client.Close(); err != nil {
				t.Error(err)
			}
			lent := c.lent && limits.Supported && !own.Has(process.SysResource)
			if got := strings.Contains(text, "preload /proc/self/fd/"); got != lent {
				t.Errorf("lent: %v, want %v: %s", got, lent, text)
			}
			if got := strings.Contains(text, "/memfd:migrate-limits"); got != lent {
				t.Errorf("loaded: %v, want %v: %s", got, lent, text)
			}
			for i := range c.options.Files {
				if want := "/proc/self/fd/" + string(rune('0'+FirstFile+i)) + " /dev/null"; !strings.Contains(text, want) {
					t.Errorf("no %q in %s", want, text)
				}
			}
		})
	}
}

// With what it is lent CRIU dumps a process of another user's, on hosts without CAP_SYS_RESOURCE too.
func TestAnotherUsersProcessIsDumped(t *testing.T) {
	testutil.Need(t, limits.Supported, "a library for this processor")
	victim := sleeper(t, "setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", "sleep", "1000")
	client, err := Start(t.Context(), &StartOptions{Path: program(t), Limits: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	call, err := client.Dump(t.Context(), dumpRequest(t.TempDir(), victim.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if scripts, err := follow(t, call, nil); !errors.Is(err, io.EOF) {
		t.Errorf("after %v: %v", scripts, err)
	}
}

func TestNothingIsLentToWhoMayReadLimits(t *testing.T) {
	c := &Client{cmd: exec.Command("criu")}
	if library := c.lend(1 << process.SysResource); library != nil || c.cmd.Env != nil || c.cmd.ExtraFiles != nil {
		t.Errorf("lent %v, %q", library, c.cmd.Env)
	}
}

// The programs that CRIU runs have its environment, and no descriptor but their stdio.
func TestHelpersStartWithoutTheLibrary(t *testing.T) {
	for _, args := range [][]string{{"sh", "-c", "exit 0"}, {"tar", "--version"}, {"ip", "-V"}, {"iptables-restore", "--version"}} {
		path, err := exec.LookPath(args[0])
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(t.Context(), path, args[1:]...)
		cmd.Env = append(os.Environ(), "LD_PRELOAD=/proc/self/fd/199")
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", args[0], err, said)
		}
	}
}

func TestWhoCanBeLentALibrary(t *testing.T) {
	dir := t.TempDir()
	static := make([]byte, 64) // no program header, none for a loader
	copy(static, "\x7fELF\x02\x01\x01")
	static[16], static[18], static[20], static[52] = 2, 62, 1, 64
	for name, c := range map[string]struct {
		text []byte
		want bool
	}{"static": {static, false}, "script": {[]byte("#!/bin/sh\nexec criu\n"), true}} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, c.text, 0o755); err != nil {
			t.Fatal(err)
		}
		if got := Borrows(path); got != (c.want && limits.Supported) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, path := range []string{"/bin/sh", dir + "/none"} {
		if !Borrows(path) && limits.Supported {
			t.Errorf("%s cannot be lent anything", path)
		}
	}
}
