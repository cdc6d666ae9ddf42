package cgroup

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestConfigPlacesTheCgroup(t *testing.T) {
	for _, c := range []struct {
		name, path         string
		systemd            bool
		wantPath, wantName string
		wantErr            string
	}{
		{name: "no path: the id", wantName: "web"},
		{name: "absolute", path: "/pod/web", wantPath: "/pod/web"},
		{name: "relative stays relative", path: "pod/web", wantPath: "pod/web"},
		{name: "relative cannot climb", path: "../../web", wantPath: "web"},
		{name: "systemd default", systemd: true, wantName: "web"},
		{name: "systemd", path: "machine.slice:libpod:abc", systemd: true, wantName: "abc"},
		{name: "systemd wants three parts", path: "/pod/web", systemd: true, wantErr: `of format "slice:prefix:name"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := &specs.Spec{Linux: &specs.Linux{CgroupsPath: c.path}}
			got, err := Config(spec, &Options{ID: "web", Systemd: c.systemd})
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Errorf("error is %v, want %q", err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Path != c.wantPath || got.Name != c.wantName {
				t.Errorf("path %q name %q, want %q %q", got.Path, got.Name, c.wantPath, c.wantName)
			}
		})
	}
}

func TestResourcesKeepsEveryLimit(t *testing.T) {
	const text = `{
		"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
		"memory": {"limit": 1048576, "swap": 2097152, "reservation": 524288},
		"cpu": {"shares": 512, "quota": 5000, "period": 10000, "cpus": "0-1", "burst": 100},
		"pids": {"limit": 7},
		"blockIO": {"weight": 100, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]},
		"hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
		"network": {"classID": 3, "priorities": [{"name": "eth0", "priority": 4}]}
	}`
	var r specs.LinuxResources
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	got, err := Resources(&r)
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"devices": len(got.Devices) == 2 && got.Devices[1].Major == 10 && got.Devices[0].Major == -1,
		"memory":  got.Memory == 1048576 && got.MemorySwap == 2097152 && got.MemoryReservation == 524288,
		"cpu":     got.CpuShares == 512 && got.CpuWeight != 0 && got.CpuQuota == 5000 && got.CpusetCpus == "0-1" && *got.CpuBurst == 100,
		"pids":    *got.PidsLimit == 7,
		"block":   got.BlkioWeight == 100 && len(got.BlkioThrottleReadBpsDevice) == 1,
		"huge":    len(got.HugetlbLimit) == 1,
		"network": got.NetClsClassid == 3 && got.NetPrioIfpriomap[0].Priority == 4,
	} {
		if !ok {
			t.Errorf("%s is lost: %+v", name, got)
		}
	}
}

func TestConfigRefusesBadDeviceRules(t *testing.T) {
	for name, rule := range map[string]specs.LinuxDeviceCgroup{
		"no access":    {Allow: true},
		"unknown type": {Type: "x", Access: "r"},
	} {
		spec := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{rule}}}}
		if _, err := Config(spec, &Options{ID: "x"}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSystemdProperties(t *testing.T) {
	props, err := systemdProperties(map[string]string{"org.systemd.property.TimeoutStopSec": "uint64 2", "other": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if len(props) != 1 || props[0].Name != "TimeoutStopUSec" || props[0].Value.Value() != uint64(2_000_000) {
		t.Errorf("properties are %+v", props)
	}
	for _, bad := range []string{"org.systemd.property.a", "org.systemd.property.a-b-c"} {
		if _, err := systemdProperties(map[string]string{bad: "1"}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

// runc takes an "a" among the letters of a device's access, and so configs have it.
func TestLetterWithoutMeaningInDeviceAccessIsPassedOver(t *testing.T) {
	major, minor := int64(1), int64(11)
	rule, err := deviceRule(&specs.LinuxDeviceCgroup{Type: "c", Major: &major, Minor: &minor, Access: "rwa"})
	if err != nil || rule.Permissions != "rw" {
		t.Errorf("rule %+v, error %v", rule, err)
	}
	for _, access := range []string{"a", "rx"} {
		if _, err := deviceRule(&specs.LinuxDeviceCgroup{Type: "c", Access: access}); err == nil {
			t.Errorf("access %q is taken", access)
		}
	}
}
