package spec

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
)

// pair makes a veth pair in the tests' network namespace; the first end is up and has addresses.
func pair(t *testing.T, name, peer string) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1400, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 7, 1}}, PeerName: peer,
	}))
	link, err := netlink.LinkByName(name)
	must(t, err)
	t.Cleanup(func() {
		if link, err := netlink.LinkByName(peer); err == nil {
			must(t, netlink.LinkDel(link))
		}
	})
	for _, address := range []string{"192.0.2.7/24", "2001:db8::7/64"} {
		a, err := netlink.ParseAddr(address)
		must(t, err)
		must(t, netlink.AddrAdd(link, a))
	}
	must(t, netlink.LinkSetUp(link))
}

func (b *box) device(name, inside string) {
	if b.spec.Linux.NetDevices == nil {
		b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
	}
	b.spec.Linux.NetDevices[name] = specs.LinuxNetDevice{Name: inside}
}

func exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

const showDevice = "ip addr show dev $D | awk '/mtu/ {print $2, $5} /ether/ {print $2} /scope global/ {print $2}'; ip link show dev $D | grep -c '[<,]UP'"

func TestNetworkDeviceMovesInWithItsAddresses(t *testing.T) {
	for _, inside := range []string{"", "eth0"} {
		pair(t, "dev7", "dev7peer")
		b := newBox(t, showDevice)
		b.device("dev7", inside)
		name := inside
		if name == "" {
			name = "dev7"
		}
		b.spec.Process.Env = append(b.spec.Process.Env, "D="+name)
		got := b.run()
		// The kernel shows the peer's index with the name.
		first, rest, _ := strings.Cut(got.stdout, "\n")
		if !strings.HasPrefix(first, name+"@") || !strings.HasSuffix(first, " 1400") ||
			rest != "02:00:00:00:07:01\n192.0.2.7/24\n2001:db8::7/64\n1\n" {
			t.Errorf("as %q: exit code %d, the container printed:\n%s%s", inside, got.code, got.stdout, got.stderr)
		}
		// A virtual device goes with the container's namespace.
		eventually(t, "the peer goes too", func() bool { return !exists("dev7peer") })
	}
}

func TestNetworkDeviceStaysInANamespaceOfOthers(t *testing.T) {
	holder := exec.Command("unshare", "--net", "sleep", "60")
	must(t, holder.Start())
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	}()
	path := "/proc/" + itoa(holder.Process.Pid) + "/ns/net"
	own, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	eventually(t, "the namespace is there", func() bool {
		theirs, err := os.Readlink(path)
		return err == nil && theirs != own
	})
	pair(t, "dev8", "dev8peer")
	b := newBox(t, "true")
	b.device("dev8", "moved")
	for i := range b.spec.Linux.Namespaces {
		if b.spec.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			b.spec.Linux.Namespaces[i].Path = path
		}
	}
	if got := b.run(); got.code != 0 {
		t.Fatal(got.stderr)
	}
	text, err := exec.Command("nsenter", "--net="+path, "ip", "addr", "show", "dev", "moved").CombinedOutput()
	if err != nil || !strings.Contains(string(text), "192.0.2.7/24") {
		t.Errorf("in the namespace: %v: %s", err, text)
	}
}

func TestNetworkDevicesComeBackWhenTheContainerCannotBeMade(t *testing.T) {
	pair(t, "dev9", "dev9peer")
	for name, change := range map[string]func(*box){
		"hook fails":                     func(b *box) { b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}} },
		"no program":                     func(b *box) { b.spec.Process.Args = []string{"/no/such/program"} },
		"the second device is not there": func(b *box) { b.device("dev9x", "") },
		"the name is taken":              func(b *box) { b.device("dev9", "lo") },
	} {
		b := newBox(t, "true")
		b.device("dev9", "eth0")
		change(b)
		if got := b.run(); got.code == 0 || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d: %s", name, got.code, got.stderr)
		}
		text, err := exec.Command("ip", "addr", "show", "dev", "dev9").CombinedOutput()
		for _, want := range []string{"192.0.2.7/24", "2001:db8::7/64", "mtu 1400", ",UP"} {
			if !strings.Contains(string(text), want) {
				t.Fatalf("%s: the device is not what it was: %v: %s", name, err, text)
			}
		}
	}
}

func TestNetworkDevicesAreRefusedWithoutANamespaceForThem(t *testing.T) {
	refused(t, []row{
		{"no namespace", func(b *box) {
			b.spec.Linux.Namespaces = b.spec.Linux.Namespaces[:1]
			for i := range b.spec.Linux.Namespaces {
				b.spec.Linux.Namespaces[i] = has(specs.MountNamespace, "")
			}
			b.spec.Hostname = ""
			b.device("dev7", "")
		}, "", "unable to move network devices without a NET namespace"},
		{"bad name", func(b *box) { b.device("dev7", "a/b") }, "", "invalid network device name"},
		{"no such device", func(b *box) { b.device("dev77", "") }, "", "find network device dev77: Link not found"},
	})
}
