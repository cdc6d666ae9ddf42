package e2e

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/testutil"
	"github.com/livemigrate/migrate/tests/lab"
)

// service is what people run: a database, a web server, a language's run-time, several processes under a supervisor. The
// script testdata/services/NAME.sh is the container's process, testdata/services.py has the client that goes with it.
type service struct {
	name    string
	program string // in one of the machine's directories of programs; scripts/setup --strangers installs them all
	client  string
	loop    bool // counts in /tmp/loop what it has done, and puts into /tmp/bad what went wrong
}

func services() []service {
	return []service{
		{name: "postgres", program: "/usr/lib/postgresql/*/bin/postgres", client: "postgres"},
		{name: "mariadb", program: "/usr/sbin/mariadbd", client: "mariadb"},
		{name: "redis", program: "/usr/bin/redis-server", client: "redis"},
		{name: "memcached", program: "/usr/bin/memcached", client: "memcached"},
		{name: "rabbitmq", program: "/usr/sbin/rabbitmq-server", client: "rabbitmq"},
		{name: "sqlite", program: "/usr/bin/python3", client: "lines"},
		{name: "nginx", program: "/usr/sbin/nginx", client: "http"},
		{name: "apache", program: "/usr/sbin/apache2", client: "http"},
		{name: "php", program: "/usr/sbin/php-fpm*", client: "php"},
		{name: "node", program: "/usr/bin/node", client: "app"},
		{name: "gunicorn", program: "/usr/bin/gunicorn", client: "app"},
		{name: "asyncio", program: "/usr/bin/python3", client: "lines"},
		{name: "java", program: "/usr/bin/javac", client: "app"},
		{name: "ruby", program: "/usr/bin/ruby", client: "lines"},
		{name: "perl", program: "/usr/bin/perl", client: "lines"},
		{name: "erlang", program: "/usr/bin/erl", client: "lines"},
		{name: "supervisor", program: "/usr/bin/supervisord", client: "lines"},
		{name: "s6", program: "/usr/bin/s6-svscan", client: "lines"},
		{name: "tini", program: "/usr/bin/tini", client: "lines", loop: true},
		{name: "build", program: "/usr/bin/gcc", client: "lines", loop: true},
		{name: "tmux", program: "/usr/bin/tmux", client: "lines", loop: true},
		{name: "sshd", program: "/usr/sbin/sshd", client: "ssh"},
		{name: "objects", program: "/usr/bin/python3", client: "lines"},
		{name: "terminal", program: "/usr/sbin/sshd", client: "terminal"},
	}
}

// inModes are the modes of the moves of services, in turn.
var inModes = flag.String("modes", "auto,post-copy,pre-copy,hybrid,stop-copy", "modes of the moves of services, in turn")

// mishaps befall every other move: the peer's cable is pulled for a while, or connections between the hosts are reset.
var mishaps = []string{"", "cable", "", "reset"}

// TestServicesMove is of make test-strangers alone. Each service moves there and back under its clients' load, in every mode,
// and some moves meet with a mishap. In the end nothing that was acknowledged is missing, on connections that were never lost.
func TestServicesMove(t *testing.T) {
	if *moves == 0 {
		return
	}
	for _, s := range services() {
		t.Run(s.name, func(t *testing.T) {
			found, _ := filepath.Glob(s.program)
			testutil.Extra(t, len(found) > 0, s.program)
			w := newWorldFor(t, 3*time.Minute+time.Duration(*moves)*time.Minute)
			w.runService(w.A, s)
			load := w.burden(s.client)
			at := w.A
			for n := range *moves {
				at = w.suffer(at, load, n)
				w.loops(at, s)
			}
			load.say("end")
		})
	}
}

// suffer moves the service to the other host, with a mishap or without, and returns where it is then.
func (w *world) suffer(at *lab.Host, load *clients, n int) *lab.Host {
	w.t.Helper()
	modes := strings.Split(*inModes, ",")
	mode, mishap, to := modes[n%len(modes)], mishaps[n%len(mishaps)], w.other(at)
	p := w.push(at, "--mode", mode, "--volumes", "shared", "service", w.tls(to))
	phase := phases[rand.IntN(len(phases))]
	if mishap != "" && p.until(phase) {
		w.befall(to, mishap)
	} else {
		mishap = "" // the move was over before: it is judged as any other
	}
	code, err := p.Wait(2 * time.Minute) // as long as a machine under load may take
	if err != nil {
		w.tellStuck()
		w.t.Fatalf("%s (%s at %s): %v", mode, mishap, phase, err)
	}
	if code == 3 {
		if _, err := at.Run(w.ctx, "migrate", "resolve", "service"); err != nil {
			w.t.Errorf("resolve: %v", err)
		}
	}
	now := w.where("service")
	if (mishap == "" && code != 0) || (code != 3 && (now == to) != (code == 0)) {
		w.t.Fatalf("push exits with %d, and the service runs on %s: %s", code, now.Name, p.result.Error)
	}
	said := load.say("look")
	if mishap != "" {
		mishap = " (" + mishap + " at " + phase + ")"
	}
	w.t.Logf("move %d, %s%s: %d, away for %.0f ms of %.0f, %d MB; answers and the slowest, ms: %s; %v%s", n+1, mode, mishap, code,
		p.result.DowntimeMS, p.result.TotalMS, p.result.BytesSent>>20, said, p.result.Phases, p.result.Error)
	return now
}

// tellStuck shows what each process of the hosts waits for, and has ours say where each goroutine is, in the log of each.
func (w *world) tellStuck() {
	for _, h := range []*lab.Host{w.A, w.B} {
		for _, pid := range h.Pids() {
			told := h.Name + " " + pid
			for _, name := range []string{"cmdline", "wchan", "stack"} {
				text, _ := os.ReadFile(filepath.Join("/proc", pid, name))
				told += " " + strings.ReplaceAll(string(text), "\x00", " ")
			}
			w.t.Log(told)
		}
		for _, ours := range [][]int{h.Keepers(), h.Feeders()} {
			for _, pid := range ours {
				_ = syscall.Kill(pid, syscall.SIGQUIT)
			}
		}
	}
	time.Sleep(time.Second)
}

func (w *world) befall(peer *lab.Host, mishap string) {
	w.t.Helper()
	switch mishap {
	case "cable":
		w.cable(peer, "down")
		time.Sleep(time.Second + rand.N(2*time.Second))
		w.cable(peer, "up")
	case "reset":
		for _, verb := range []string{"-I", "-D"} {
			if _, err := peer.Run(w.ctx, "iptables", verb, "INPUT", "-p", "tcp", "--dport", "7440", "-j", "REJECT", "--reject-with", "tcp-reset"); err != nil {
				w.t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
		}
	}
}

// loops: what a service does without being asked goes on, and well.
func (w *world) loops(at *lab.Host, s service) {
	w.t.Helper()
	if !s.loop {
		return
	}
	var before string
	for range 200 {
		said, err := at.Run(w.ctx, "migrate", "exec", "service", "sh", "-c", "cat /tmp/bad 2>/dev/null; cat /tmp/loop")
		if err != nil || strings.Contains(said, "\n") && strings.Count(said, "\n") > 1 {
			w.t.Fatalf("the loop says %q, %v", said, err)
		}
		if before != "" && said != before {
			return
		}
		before = said
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("the loop stands still after %s", before)
}

// runService starts it in a container that has the machine's own programs and a file system of its own otherwise.
func (w *world) runService(h *lab.Host, s service) {
	w.t.Helper()
	script := s.name
	if script == "terminal" {
		script = "sshd"
	}
	text, err := os.ReadFile(filepath.Join("testdata", "services", script+".sh"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.runChanged(h, "service", "busybox", func(bundle string, spec *specs.Spec) {
		rootfs := filepath.Join(h.Path(bundle), "rootfs")
		w.layMachine(rootfs, spec)
		public, _ := os.ReadFile(w.key() + ".pub")
		lines, _ := os.ReadFile(filepath.Join("testdata", "services", "lines.pl"))
		for name, text := range map[string][]byte{"service.sh": text, "lines.pl": lines, "stranger.pub": public} {
			if err := os.WriteFile(filepath.Join(rootfs, name), text, 0o644); err != nil {
				w.t.Fatal(err)
			}
		}
		// What engines give.
		capabilities := []string{
			"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID",
			"CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT", "CAP_AUDIT_WRITE",
		}
		spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities}
		spec.Process.NoNewPrivileges = false
		spec.Process.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
		spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 4096, Hard: 4096}}
	}, "bash", "/service.sh")
}

// layMachine gives the container the machine's programs and what they want of /etc.
func (w *world) layMachine(rootfs string, spec *specs.Spec) {
	w.t.Helper()
	if err := os.RemoveAll(filepath.Join(rootfs, "bin")); err != nil {
		w.t.Fatal(err)
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(rootfs, link)); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, dir := range []string{"usr", "run", "var/log", "var/lib", "etc"} {
		if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/usr", Source: "/usr", Type: "bind", Options: []string{"rbind", "ro"}})
	copied := []string{
		"passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "services", "protocols", "nginx",
		"apache2", "php", "mysql", "mime.types", "erlang", "rabbitmq", "terminfo",
	}
	java, _ := filepath.Glob("/etc/java-*")
	for _, dir := range java {
		copied = append(copied, filepath.Base(dir))
	}
	for _, name := range copied {
		if _, err := os.Lstat("/etc/" + name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if said, err := exec.CommandContext(w.ctx, "cp", "-a", "/etc/"+name, filepath.Join(rootfs, "etc")).CombinedOutput(); err != nil {
			w.t.Fatalf("copy %s: %v: %s", name, err, said)
		}
	}
}

// key is that of the client's sessions with sshd.
func (w *world) key() string {
	return filepath.Join("/var/lib/migrate-lab", w.Name, "a", "ssh", "root_key")
}

// clients are those of a service, at work.
type clients struct {
	t       *testing.T
	in      io.Writer
	answers chan string
}

// burden starts them, and returns once all are connected and answered.
func (w *world) burden(client string) *clients {
	w.t.Helper()
	program, err := filepath.Abs("testdata/services.py")
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := w.C.Command(w.ctx, "env", "STRANGER_KEY="+w.key(), "/usr/bin/python3", program, client, containerIP)
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	l := &clients{w.t, in, make(chan string, 1)}
	w.t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	go func() {
		defer close(l.answers)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			l.answers <- lines.Text()
		}
	}()
	l.answered()
	return l
}

// say has the clients look at themselves, or end and look for all that was acknowledged.
func (l *clients) say(what string) string {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.in, what); err != nil {
		l.t.Fatal(err)
	}
	return l.answered()
}

func (l *clients) answered() string {
	l.t.Helper()
	select {
	case said := <-l.answers:
		if rest, ok := strings.CutPrefix(said, "ok "); ok {
			return rest
		}
		l.t.Fatalf("the clients say %q", said)
	case <-time.After(2 * time.Minute):
		l.t.Fatal("the clients say nothing")
	}
	return ""
}
