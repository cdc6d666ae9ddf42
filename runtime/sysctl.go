package runtime

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// checkSysctls allows only what belongs to a namespace of the container: /proc/sys is the host's for the rest.
func (p *Plan) checkSysctls() error {
	for name := range p.Spec.Linux.Sysctl {
		if err := p.checkSysctl(dotted(name)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) checkSysctl(name string) error {
	ipc := []string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
		"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
	}
	has := func(kind specs.LinuxNamespaceType) bool {
		_, ok := p.namespace(kind)
		return ok
	}
	switch {
	case slices.Contains(ipc, name) || strings.HasPrefix(name, "fs.mqueue."):
		if !has(specs.IPCNamespace) {
			return fmt.Errorf("sysctl %q is not allowed in the hosts ipc namespace", name)
		}
	case strings.HasPrefix(name, "net."):
		host, err := p.hostNetwork()
		if err != nil {
			return fmt.Errorf("invalid netns path: %w", err)
		}
		if host {
			return fmt.Errorf("sysctl %q not allowed in host network namespace", name)
		}
	case name == "kernel.domainname" && has(specs.UTSNamespace):
	case name == "kernel.hostname" && has(specs.UTSNamespace):
		return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI \"hostname\" field", name)
	case strings.HasPrefix(name, "user."):
		// These limit a whole user namespace: without one of its own, the container would limit the host.
		if !has(specs.UserNamespace) {
			return fmt.Errorf("setting ucounts without a user namespace not allowed: %v", name)
		}
	default:
		return fmt.Errorf("sysctl %q is not in a separate kernel namespace", name)
	}
	return nil
}

// hostNetwork tells whether the container has the network namespace of this process, by name or by path.
func (p *Plan) hostNetwork() (bool, error) {
	path, ok := p.namespace(specs.NetworkNamespace)
	if !ok || path == "" {
		return !ok, nil
	}
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return false, err
	}
	given, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return os.SameFile(own, given), nil
}

// dotted turns the spelling with slashes, in which a dot belongs to a name (net/ipv4/conf/eth0.100/rp_filter), into the
// one with dots, in which a slash does: the first separator decides, as in sysctl(8).
func dotted(name string) string {
	if i := strings.IndexAny(name, "./"); i < 0 || name[i] == '.' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}
