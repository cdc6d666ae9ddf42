package runtime

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/runtime/internal/sysctl"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// checkSysctls allows only what belongs to a namespace of the container: /proc/sys is the host's for the rest.
func (p *Plan) checkSysctls() error {
	for name := range p.Spec.Linux.Sysctl {
		dotted, err := sysctl.Dotted(name)
		if err != nil {
			return err
		}
		if err := p.checkSysctl(dotted); err != nil {
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
