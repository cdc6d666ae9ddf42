package netspace_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/sys/netns"
	"github.com/livemigrate/migrate/internal/testutil"
)

// host runs the test in a network namespace that stands for a host, with a bridge nsbr.
func host(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	testutil.Root(t)
	testutil.Command(t, "ip")
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Do(ns, func() error {
		ip(t, "link add nsbr type bridge forward_delay 0", "link set nsbr up", "addr add 10.1.0.1/24 dev nsbr", "link set lo up")
		test(t)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		args := append([]string{"ip"}, strings.Fields(command)...)
		if args[1] == "-n" { // ip itself knows names below /run/netns only
			args = append([]string{"nsenter", "--net=" + args[2], "ip"}, args[3:]...)
		}
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", command, err, out)
		}
	}
}

// engine makes a namespace at path, as engines do.
func engine(t *testing.T, path string) *os.File {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	bind(t, ns, path)
	ip(t, "link add nsend type veth peer name eth0 netns "+path, "link set nsend master nsbr up",
		"-n "+path+" link set lo up", "-n "+path+" addr add 10.1.0.5/24 dev eth0", "-n "+path+" addr add fd01::5/64 dev eth0 nodad",
		"-n "+path+" link set eth0 mtu 1300 up", "-n "+path+" route add default via 10.1.0.1 metric 7",
		"-n "+path+" route add 10.3.0.0/16 nexthop via 10.1.0.2 weight 2 nexthop via 10.1.0.3", "-n "+path+" rule add fwmark 0x7/0xff table 9 priority 50",
		"-n "+path+" -6 route add unreachable fd03::/64", "-n "+path+" neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent")
	return ns
}

// bind gives a namespace a path for the time of the test.
func bind(t *testing.T, ns *os.File, path string) {
	t.Helper()
	if err := netns.Bind(ns, "/", strings.TrimPrefix(path, "/")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Unbind(path) })
}

// namespaces is a directory in which namespaces are made.
func namespaces(t *testing.T) string {
	t.Helper()
	testutil.Root(t)
	dir, err := os.MkdirTemp("/run", "netspace-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir + "/netns"
}

func read(t *testing.T, path string) *netspace.Record {
	t.Helper()
	ns, err := netspace.Open(path)
	if err != nil || ns == nil {
		t.Fatalf("nothing at %s: %v", path, err)
	}
	defer ns.Close()
	r, left, err := netspace.Read(ns, path)
	if err != nil || len(left) > 0 {
		t.Fatalf("%v; left: %v", err, left)
	}
	return r
}

func TestWhatIsMadeOfARecordIsAsItWas(t *testing.T) {
	path := namespaces(t) + "/web"
	host(t, func(t *testing.T) {
		engine(t, path)
		record := read(t, path)
		if err := netns.Unbind(path); err != nil {
			t.Fatal(err)
		}
		ip(t, "link del nsend")
		if err := record.Fit(false); err != nil {
			t.Fatal(err)
		}
		space, err := netspace.Make(record)
		if err != nil {
			t.Fatal(err)
		}
		left, err := space.Furnish()
		if err != nil || len(left) > 0 {
			t.Fatalf("%v; left: %v", err, left)
		}
		if again := read(t, path); !reflect.DeepEqual(again, record) {
			t.Errorf("made: %+v\nof:   %+v", again, record)
		}
		if reachable("10.1.0.5:1", 0) {
			t.Error("it is reachable before it has joined")
		}
		if err := netspace.Join(space.NS); err != nil {
			t.Fatal(err)
		}
		if !reachable("10.1.0.5:1", 10*time.Second) {
			t.Error("it is not reachable")
		}
		if err := netspace.Cut(space.NS); err != nil {
			t.Fatal(err)
		}
		if reachable("10.1.0.5:2", 0) {
			t.Error("it is reachable after it was cut off")
		}
		if err := space.Remove(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it was not removed: %v", err)
		}
	})
}

// reachable tells whether the address says, within the time, that nobody listens.
func reachable(address string, within time.Duration) bool {
	for end := time.Now().Add(within); ; {
		// An address that is one is dialled by this goroutine, on the thread that is in the namespace.
		conn, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if err == nil {
			conn.Close()
		}
		switch {
		case err == nil || errors.Is(err, syscall.ECONNREFUSED):
			return true
		case time.Now().After(end):
			return false
		}
	}
}

func TestFitNamesWhatIsInTheWay(t *testing.T) {
	dir := namespaces(t)
	host(t, func(t *testing.T) {
		engine(t, dir+"/prepared")
		ns, err := netns.Current()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		bind(t, ns, dir+"/host")
		prepared := read(t, dir+"/prepared")
		veth := netspace.Link{Name: "eth0", Type: "veth", Up: true, MAC: "02:00:00:00:00:01", Addresses: []string{"10.1.0.6/24"}, Bridge: "nsbr"}
		elsewhere, routed := veth, veth
		elsewhere.Bridge, routed.Bridge = "nsbr9", ""
		if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			record *netspace.Record
			hooked bool
			want   error
		}{
			"an engine's":           {prepared, false, nil},
			"on a bridge":           {&netspace.Record{Path: dir + "/new", Links: []netspace.Link{veth}}, false, nil},
			"no such bridge":        {&netspace.Record{Path: dir + "/new", Links: []netspace.Link{elsewhere}}, false, netspace.ErrUnconnected},
			"on no bridge":          {&netspace.Record{Path: dir + "/new", Links: []netspace.Link{routed}}, false, netspace.ErrUnconnected},
			"a hook":                {&netspace.Record{Path: dir + "/new", Links: []netspace.Link{routed}}, true, nil},
			"another address":       {&netspace.Record{Path: dir + "/prepared", Links: []netspace.Link{veth}}, true, netspace.ErrOther},
			"a file":                {&netspace.Record{Path: dir + "/file"}, true, netspace.ErrOther},
			"a process's":           {&netspace.Record{Path: "/proc/1/ns/net"}, true, netspace.ErrOther},
			"the host's own":        {&netspace.Record{Path: dir + "/host"}, true, netspace.ErrOther},
			"a place for anything":  {&netspace.Record{Path: "/run/nologin"}, true, netspace.ErrPlace},
			"a place on the disk":   {&netspace.Record{Path: "/etc/netns/x"}, true, netspace.ErrPlace},
			"a rule of no table":    {&netspace.Record{Path: dir + "/new", Rules: []netspace.Rule{{Family: 4, From: "10.0.0.0/8"}}}, true, netspace.ErrInvalid},
			"a path that climbs":    {&netspace.Record{Path: dir + "/../x"}, true, netspace.ErrInvalid},
			"a parameter elsewhere": {&netspace.Record{Path: dir + "/new", Sysctls: map[string]string{"net/../kernel/core_pattern": "x"}}, true, netspace.ErrInvalid},
			"an interface's name":   {&netspace.Record{Path: dir + "/new", Links: []netspace.Link{{Name: "a/b", Type: "veth"}}}, true, netspace.ErrInvalid},
			"a kind of interface":   {&netspace.Record{Path: dir + "/new", Links: []netspace.Link{{Name: "a", Type: "$(id)"}}}, true, netspace.ErrInvalid},
			"a route by a word":     {&netspace.Record{Path: dir + "/new", Routes: []netspace.Route{{To: "default", Family: 4, Hops: []netspace.NextHop{{Via: "$(id)"}}}}}, true, netspace.ErrInvalid},
			"a route to a word":     {&netspace.Record{Path: dir + "/new", Routes: []netspace.Route{{To: "there", Family: 4}}}, true, netspace.ErrInvalid},
			"a rule of no family":   {&netspace.Record{Path: dir + "/new", Rules: []netspace.Rule{{Family: 5, Table: 1}}}, true, netspace.ErrInvalid},
			"a neighbour's name":    {&netspace.Record{Path: dir + "/new", Neighbours: []netspace.Neighbour{{Dev: "eth0", IP: "x", MAC: "02:00:00:00:00:01"}}}, true, netspace.ErrInvalid},
		} {
			if err := c.record.Fit(c.hooked); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
	})
}

func TestHookSaysWhatWentWrong(t *testing.T) {
	script := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ngrep -q '\"network\":{\"path\":\"/run/netns/web\"' || echo no json >&2\necho $1 $MIGRATE_NETNS >&2; exit 4\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := (&netspace.Hook{Program: script}).Run(context.Background(), netspace.Add, &netspace.Call{Network: &netspace.Record{Path: "/run/netns/web"}})
	if err == nil || !strings.Contains(err.Error(), "exit status 4: add /run/netns/web") {
		t.Error(err)
	}
}

// The host's own namespace is never cut off, whatever path another host calls it by.
func TestMakeDoesNotCutOffTheHost(t *testing.T) {
	path := namespaces(t) + "/host"
	host(t, func(t *testing.T) {
		ns, err := netns.Current()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		bind(t, ns, path)
		if _, err := netspace.Make(&netspace.Record{Path: path}); !errors.Is(err, netspace.ErrOther) {
			t.Errorf("made: %v", err)
		}
		if is, err := netspace.IsCut(ns); is || err != nil {
			t.Errorf("the host is cut off: %t, %v", is, err)
		}
	})
}

// A container that comes back soon meets the interface that its last namespace has not let go of yet.
func TestMakeTakesItsInterfaceFromANamespaceThatGoes(t *testing.T) {
	record := &netspace.Record{Path: namespaces(t) + "/web", Links: []netspace.Link{
		{Name: "eth0", Type: "veth", Up: true, MAC: "02:00:00:00:00:01", MTU: 1500, Addresses: []string{"10.1.0.6/24"}, Bridge: "nsbr"},
	}}
	host(t, func(t *testing.T) {
		for range 2 {
			space, err := netspace.Make(record)
			if err != nil {
				t.Fatal(err)
			}
			defer space.Close() // the first is there still
			if err := netns.Unbind(record.Path); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What a hook makes in a namespace that was there is cut off with the rest, and what it has is what is announced.
func TestFurnishCutsOffWhatAHookMadeInANamespaceOfAnEngine(t *testing.T) {
	path := namespaces(t) + "/web"
	host(t, func(t *testing.T) {
		ns := engine(t, path)
		space, err := netspace.Make(read(t, path))
		if err != nil {
			t.Fatal(err)
		}
		defer space.Close()
		ip(t, "link add hookend type veth peer name eth1 netns "+path, "link set hookend master nsbr up",
			"-n "+path+" addr add 10.1.0.7/24 dev eth1", "-n "+path+" link set eth1 up", "-n "+path+" addr del 10.1.0.5/24 dev eth0")
		if left, err := space.Furnish(); err != nil || len(left) > 0 {
			t.Fatalf("%v; left: %v", err, left)
		}
		if reachable("10.1.0.7:1", 0) {
			t.Error("what the hook made is reachable")
		}
		links, err := netspace.Ethernet(ns)
		if err != nil || len(links) != 2 {
			t.Fatalf("%v, %v", links, err)
		}
		for _, l := range links {
			for _, p := range l.Prefixes() {
				if ip := p.Addr(); !ip.IsLinkLocalUnicast() && ip.String() != map[string]string{"eth0": "fd01::5", "eth1": "10.1.0.7"}[l.Name] {
					t.Errorf("%s has %v", l.Name, p)
				}
			}
		}
	})
}

func TestBindFollowsNoLink(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	if err := os.Symlink("/etc", dir+"/netns"); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Bind(ns, dir, "netns/migrate-test"); err == nil {
		t.Error("bound in /etc")
	}
	if _, err := os.Lstat("/etc/migrate-test"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestReadNamesWhatItLeaves(t *testing.T) {
	path := namespaces(t) + "/web"
	host(t, func(t *testing.T) {
		ns := engine(t, path)
		ip(t, "-n "+path+" rule add prohibit iif eth0 priority 60", "-n "+path+" rule add from 10.9.0.0/16 blackhole priority 61",
			"-n "+path+" rule add to 10.9.0.0/16 goto 32766 priority 62", "-n "+path+" rule add table 9 realms 3 priority 63",
			"-n "+path+" rule add lookup main suppress_prefixlength 0 priority 32766", "-n "+path+" route add 10.4.0.0/16 via 10.1.0.1 advmss 900",
			"-n "+path+" route add 10.6.0.0/16 via 10.1.0.1 tos 4", "-n "+path+" addr add 10.7.0.1 peer 10.7.0.2 dev eth0")
		record, left, err := netspace.Read(ns, path)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(left, "\n")
		for _, want := range []string{
			"rule 60 of IPv4", "rule 61 of IPv4", "rule 62 of IPv4", "rule 63 of IPv4", "advmss of the route to 10.4.0.0/16", "10.6.0.0/16",
			"the peer of the address 10.7.0.1",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not named in\n%s", want, text)
			}
		}
		for _, rule := range record.Rules {
			if rule.Priority != 50 && (rule.Priority != 32766 || rule.SuppressPrefix == nil) {
				t.Errorf("recorded: %+v", rule)
			}
		}
		if len(record.Rules) != 2 || record.Validate() != nil {
			t.Errorf("%v, %v", record.Rules, record.Validate())
		}
	})
}

func TestHookIsKilledWithItsChildren(t *testing.T) {
	dir := t.TempDir()
	child := dir + "/child"
	if err := os.WriteFile(dir+"/hook", []byte("#!/bin/sh\nsleep 100 &\necho $! >"+child+".new\nyes >&2 &\nmv "+child+".new "+child+"; sleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- (&netspace.Hook{Program: dir + "/hook"}).Run(ctx, netspace.Add, &netspace.Call{Network: &netspace.Record{}})
	}()
	defer cancel()
	pid := written(t, child)
	cancel()
	if err := <-ended; err == nil || len(err.Error()) > 2000 {
		t.Error(err)
	}
	gone(t, pid)
}

// A hook whose keeper was killed does not go on beside the one that takes away what it made.
func TestHookEndsWithItsCaller(t *testing.T) {
	if script := os.Getenv("NETSPACE_TEST_HOOK"); script != "" { // the caller
		err := (&netspace.Hook{Program: script}).Run(context.Background(), netspace.Add, &netspace.Call{Network: &netspace.Record{}})
		t.Fatal(err)
	}
	script, began := filepath.Join(t.TempDir(), "hook"), filepath.Join(t.TempDir(), "began")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho $$ >"+began+".new; mv "+began+".new "+began+"; exec sleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	caller := exec.Command(os.Args[0], "-test.run=^TestHookEndsWithItsCaller$")
	caller.Env = append(os.Environ(), "NETSPACE_TEST_HOOK="+script)
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	pid := written(t, began)
	if err := caller.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = caller.Wait()
	gone(t, pid)
}

// written waits for a file with the number of a process.
func written(t *testing.T, file string) (pid int) {
	t.Helper()
	until(t, "the hook runs", func() bool {
		text, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid > 0
	})
	return pid
}

func gone(t *testing.T, pid int) {
	t.Helper()
	until(t, "the hook has ended", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || len(text) == 0 // gone, or a zombie
	})
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in ten seconds: %s", what)
		}
	}
}
