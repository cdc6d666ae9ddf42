package netspace_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
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
	if err := netns.Bind(ns, path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Unbind(path) })
	ip(t, "link add nsend type veth peer name eth0 netns "+path, "link set nsend master nsbr up",
		"-n "+path+" link set lo up", "-n "+path+" addr add 10.1.0.5/24 dev eth0", "-n "+path+" addr add fd01::5/64 dev eth0 nodad",
		"-n "+path+" link set eth0 mtu 1300 up", "-n "+path+" route add default via 10.1.0.1 metric 7",
		"-n "+path+" route add 10.3.0.0/16 nexthop via 10.1.0.2 weight 2 nexthop via 10.1.0.3", "-n "+path+" rule add fwmark 0x7/0xff table 9 priority 50",
		"-n "+path+" -6 route add unreachable fd03::/64", "-n "+path+" neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent")
	return ns
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
	path := filepath.Join(t.TempDir(), "run", "netns", "web")
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
	dir := t.TempDir()
	host(t, func(t *testing.T) {
		engine(t, dir+"/prepared")
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
			"a path that climbs":    {&netspace.Record{Path: dir + "/../x"}, true, netspace.ErrInvalid},
			"a parameter elsewhere": {&netspace.Record{Path: dir + "/new", Sysctls: map[string]string{"net/../kernel/core_pattern": "x"}}, true, netspace.ErrInvalid},
			"an interface's name":   {&netspace.Record{Path: dir + "/new", Links: []netspace.Link{{Name: "a/b", Type: "veth"}}}, true, netspace.ErrInvalid},
			"a kind of interface":   {&netspace.Record{Path: dir + "/new", Links: []netspace.Link{{Name: "a", Type: "$(id)"}}}, true, netspace.ErrInvalid},
			"a route by a word":     {&netspace.Record{Path: dir + "/new", Routes: []netspace.Route{{To: "default", Family: 4, Hops: []netspace.NextHop{{Via: "$(id)"}}}}}, true, netspace.ErrInvalid},
			"a route to a word":     {&netspace.Record{Path: dir + "/new", Routes: []netspace.Route{{To: "there", Family: 4}}}, true, netspace.ErrInvalid},
			"a rule of no family":   {&netspace.Record{Path: dir + "/new", Rules: []netspace.Rule{{Family: 5}}}, true, netspace.ErrInvalid},
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
