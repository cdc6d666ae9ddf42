package netspace

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzRecord: of what a peer's record says, a valid one gives names to the kernel and to a hook, and nothing else.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"path":"/run/netns/a","links":[{"name":"eth0","type":"veth","mac":"02:00:00:00:00:01","mtu":1500,"up":true,` +
		`"addresses":["10.0.0.5/24","fd00::5/64"],"bridge":"br0"},{"name":"lo","type":"loopback"}],` +
		`"routes":[{"to":"default","type":"unicast","family":4,"table":254,"hops":[{"dev":"eth0","via":"10.0.0.1","weight":2},{"via":"fe80::1"}]}],` +
		`"rules":[{"family":6,"priority":100,"table":7,"from":"fd00::/64","mark":1,"mask":255,"iif":"eth0","suppress_prefixlength":0}],` +
		`"neighbours":[{"dev":"eth0","ip":"10.0.0.1","mac":"02:00:00:00:00:02"}],"sysctls":{"net/ipv4/conf/eth0/rp_filter":"1"}}`))
	f.Add([]byte(`{"links":[{"name":"../x","type":"veth"}],"sysctls":{"net/../kernel/core_pattern":"|/x"}}`))
	f.Add([]byte(`{"links":null,"rules":[{"family":4,"to":"1.2.3.4/33"}],"routes":[{"to":"::/0","family":4,"source":"x"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r, again Record
		if json.Unmarshal(text, &r) != nil || r.Validate() != nil {
			return
		}
		for i := range r.Links {
			l := &r.Links[i]
			if strings.ContainsAny(l.Name+l.Bridge+l.Type, "/% \x00\n") || len(l.Prefixes()) != len(l.Addresses) {
				t.Errorf("%+v is valid", l)
			}
		}
		for i := range r.Routes {
			if _, err := r.Routes[i].netlinkRoute(map[string]int{}); err != nil {
				t.Errorf("%+v is valid: %v", r.Routes[i], err)
			}
		}
		for key := range r.Sysctls {
			if !strings.HasPrefix(key, "net/") || strings.Contains(key, "..") && strings.Contains("/"+key+"/", "/../") {
				t.Errorf("sysctl %q is valid", key)
			}
		}
		_ = r.Addresses()
		written, err := json.Marshal(&r) // as a hook gets it
		if err == nil {
			err = json.Unmarshal(written, &again)
		}
		if err == nil {
			err = again.Validate()
		}
		if err != nil {
			t.Errorf("%s is valid, and written again it is not: %v", text, err)
		}
	})
}
