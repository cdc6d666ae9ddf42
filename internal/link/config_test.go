package link

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseReadsTheFlag(t *testing.T) {
	tests := map[string]Config{
		"bridge=br0,address=10.0.0.5/24": {Bridge: "br0", Addresses: []string{"10.0.0.5/24"}},
		"bridge=br0,address=10.0.0.5/24,gateway=10.0.0.1,mac=02:00:00:00:00:05,mtu=1400,interface=net1": {
			Bridge: "br0", Interface: "net1", Addresses: []string{"10.0.0.5/24"}, Gateways: []string{"10.0.0.1"},
			MAC: "02:00:00:00:00:05", MTU: 1400,
		},
		"address=10.0.0.5/24,address=fd00::5/64,gateway=10.0.0.1,gateway=fe80::1,bridge=br0": {
			Bridge: "br0", Addresses: []string{"10.0.0.5/24", "fd00::5/64"}, Gateways: []string{"10.0.0.1", "fe80::1"},
		},
		"bridge=br0,address=10.0.0.0/31,gateway=10.0.0.1": { // RFC 3021: both are hosts
			Bridge: "br0", Addresses: []string{"10.0.0.0/31"}, Gateways: []string{"10.0.0.1"},
		},
	}
	for flag, want := range tests {
		t.Run(flag, func(t *testing.T) {
			got, err := Parse(flag)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, *got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	tests := map[string]string{ // flag: part of the error
		"":                        "not key=value",
		"bridge":                  "not key=value",
		"bridge=,address=::1/64":  "not key=value",
		"speed=9,bridge=br0":      `unknown key "speed"`,
		"bridge=br0":              "address is missing",
		"address=10.0.0.5/24":     "bridge is missing",
		"bridge=a,bridge=b":       "bridge is given twice",
		"mac=1,mac=2":             "mac is given twice",
		"mtu=1500,mtu=1500":       "mtu is given twice",
		"mtu=big":                 "not a positive number",
		"mtu=-1":                  "not a positive number",
		"interface=a,interface=b": "interface is given twice",

		"bridge=a-name-of-16-byt,address=10.0.0.5/24":                      "1 to 15 bytes",
		"bridge=a/b,address=10.0.0.5/24":                                   "not a name",
		"bridge=br%d,address=10.0.0.5/24":                                  "not a name",
		"bridge=br0,address=10.0.0.5/24,interface=lo":                      "loopback",
		"bridge=br0,address=10.0.0.5":                                      "not a CIDR",
		"bridge=br0,address=10.0.0.5/33":                                   "not a CIDR",
		"bridge=br0,address=10.0.0.5/24,address=10.0.0.5/16":               "given twice",
		"bridge=br0,address=::ffff:10.0.0.5/120":                           "write the IPv4 address",
		"bridge=br0,address=224.0.0.1/24":                                  "cannot be an interface's",
		"bridge=br0,address=0.0.0.0/24":                                    "cannot be an interface's",
		"bridge=br0,address=127.0.0.1/8":                                   "cannot be an interface's",
		"bridge=br0,address=10.0.0.0/24":                                   "network's or its broadcast",
		"bridge=br0,address=10.0.0.255/24":                                 "network's or its broadcast",
		"bridge=br0,address=10.0.3.255/22":                                 "network's or its broadcast",
		"bridge=br0,address=10.0.0.5/24,gateway=10.0.1.1":                  "outside of 10.0.0.5/24",
		"bridge=br0,address=10.0.0.5/24,gateway=fd00::1":                   "outside of",
		"bridge=br0,address=10.0.0.5/24,gateway=10.0.0.5":                  "container's own",
		"bridge=br0,address=10.0.0.5/24,gateway=gw":                        "not an IP address",
		"bridge=br0,address=10.0.0.5/24,gateway=10.0.0.1,gateway=10.0.0.2": "one of this family",
		"bridge=br0,address=10.0.0.5/24,mtu=67":                            "out of range",
		"bridge=br0,address=10.0.0.5/24,mtu=65536":                         "out of range",
		"bridge=br0,address=fd00::5/64,mtu=1279":                           "out of range",
		"bridge=br0,address=10.0.0.5/24,mac=02:00":                         "not an address",
		"bridge=br0,address=10.0.0.5/24,mac=02-00-00-00-00-00-00-01":       "not an address",
		"bridge=br0,address=10.0.0.5/24,mac=03:00:00:00:00:01":             "multicast",
		"bridge=br0,address=10.0.0.5/24,mac=00:00:00:00:00:00":             "cannot be an interface's",
	}
	for flag, want := range tests {
		t.Run(flag, func(t *testing.T) {
			_, err := Parse(flag)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the error %v does not say %q", err, want)
			}
		})
	}
}

func TestConfigIsTheSameAfterTheJourney(t *testing.T) {
	sent := Config{
		Bridge: "br0", Interface: "eth0", Addresses: []string{"10.0.0.5/24", "fd00::5/64"}, Gateways: []string{"10.0.0.1"},
		MAC: "02:00:00:00:00:05", MTU: 1400, HostEnd: "mg001122334455",
	}
	text, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Error(diff)
	}
}

func TestHostEndNamesDoNotMeet(t *testing.T) {
	long := strings.Repeat("container-of-a-long-name-", 20)
	names := make(map[string]string)
	for _, id := range []string{"a", "b", "a0", "web", "web-1", long + "1", long + "2"} {
		for attempt := range 3 {
			name := hostEndName(id, attempt)
			if err := validName(name); err != nil {
				t.Errorf("%q: %v", name, err)
			}
			if other, taken := names[name]; taken {
				t.Errorf("%q is the name of %q and of %q", name, id, other)
			}
			names[name] = id
		}
	}
	if name := HostEndName("web"); name != "mgc507b208d494" {
		t.Errorf("%q: a restarted program no longer finds its links", name)
	}
}

func TestDerivedMACIsLocalUnicastAndItsOwners(t *testing.T) {
	mac := deriveMAC("web", []string{"10.0.0.5/24"})
	if _, err := parseMAC(mac.String()); err != nil {
		t.Error(err)
	}
	if mac[0]&2 == 0 {
		t.Errorf("%s is not locally administered", mac)
	}
	if again := deriveMAC("web", []string{"10.0.0.5/24"}); again.String() != mac.String() {
		t.Errorf("derived %s, then %s", mac, again)
	}
	if other := deriveMAC("web", []string{"10.0.0.6/24"}); other.String() == mac.String() {
		t.Errorf("two containers have %s", mac)
	}
}
