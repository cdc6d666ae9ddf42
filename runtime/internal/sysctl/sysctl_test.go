package sysctl

import "testing"

func TestBothSpellingsNameOneParameter(t *testing.T) {
	for name, want := range map[string]string{
		"kernel.shmmax":                    "kernel.shmmax",
		"kernel/shmmax":                    "kernel.shmmax",
		"net.ipv4.conf.eth0/100.rp_filter": "net.ipv4.conf.eth0/100.rp_filter",
		"net/ipv4/conf/eth0.100/rp_filter": "net.ipv4.conf.eth0/100.rp_filter",
	} {
		if got, err := Dotted(name); got != want || err != nil {
			t.Errorf("Dotted(%q) is %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestNameThatClimbsIsRefused(t *testing.T) {
	for _, name := range []string{
		"net/../kernel/core_pattern", "net.//.kernel.core_pattern", "net/./x", "net.", "net/", "net..x", ".net", "/net/x",
		"../net", "..", ".", "/", "", "net",
	} {
		if got, err := Dotted(name); err == nil {
			t.Errorf("Dotted(%q) is %q", name, got)
		}
	}
}
