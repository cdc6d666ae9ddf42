package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/livemigrate/migrate/runtime/internal/hooks"
	"github.com/livemigrate/migrate/runtime/internal/rootfs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/selinux/go-selinux"
)

// validate runs every check that needs no more than the plan; the order is that of config.json. Texts that runc has too
// are the same: they are searched for.
func (p *Plan) validate() error {
	for _, check := range []func() error{
		p.checkRoot,
		func() error { return checkProcess(p.Spec.Process) },
		p.checkNames,
		p.checkMounts,
		p.checkHooks,
		p.checkNamespaces,
		p.checkUserNamespace,
		p.checkTimeNamespace,
		p.checkDevices,
		p.checkSysctls,
		p.checkCgroup,
		p.checkPropagation,
		p.checkSeccomp,
		p.checkMemoryPolicy,
		p.checkRest,
		p.checkNetwork,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkRoot wants a real directory: behind a symbolic link another one could be put at any time.
func (p *Plan) checkRoot() error {
	if p.Spec.Root == nil {
		return errors.New("root must be specified")
	}
	info, err := os.Stat(p.Rootfs)
	if err != nil {
		return fmt.Errorf("invalid rootfs: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("invalid rootfs: %s is not a directory", p.Rootfs)
	}
	target, err := filepath.EvalSymlinks(p.Rootfs)
	if err != nil {
		return fmt.Errorf("invalid rootfs: %w", err)
	}
	if target != p.Rootfs {
		return errors.New("invalid rootfs: not an absolute path, or a symlink")
	}
	return nil
}

func (p *Plan) checkNames() error {
	_, uts := p.namespace(specs.UTSNamespace)
	switch {
	case uts:
		return nil
	case p.Spec.Hostname != "":
		return errors.New("unable to set hostname without a private UTS namespace")
	case p.Spec.Domainname != "":
		return errors.New("unable to set domainname without a private UTS namespace")
	}
	return nil
}

func (p *Plan) checkMounts() error {
	for i := range p.Spec.Mounts {
		m := &p.Spec.Mounts[i]
		if m.Destination == "" {
			return fmt.Errorf("invalid mount %d: it has no destination", i)
		}
		for _, text := range append([]string{m.Source, m.Destination, m.Type}, m.Options...) {
			if strings.ContainsRune(text, 0) {
				return fmt.Errorf("invalid mount on %q: mount field contains null byte", m.Destination)
			}
		}
	}
	return rootfs.CheckMounts(p.Spec, p.Bundle)
}

func (p *Plan) checkHooks() error {
	for _, name := range hooks.Names() {
		for i, hook := range hooks.Of(p.Spec.Hooks, name) {
			if !filepath.IsAbs(hook.Path) {
				return fmt.Errorf("invalid %s hook #%d: path %q is not absolute", name, i, hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return fmt.Errorf("invalid %s hook #%d: timeout must be greater than 0", name, i)
			}
		}
	}
	return nil
}

func (p *Plan) checkNamespaces() error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range p.Spec.Linux.Namespaces {
		i := slices.IndexFunc(namespaceKeys(), func(k namespaceKey) bool { return k.kind == n.Type })
		switch {
		case i < 0:
			return fmt.Errorf("namespace %q does not exist", n.Type)
		case seen[n.Type]:
			return fmt.Errorf("malformed spec file: duplicated ns %q", n.Type)
		}
		seen[n.Type] = true
		if _, err := os.Stat("/proc/self/ns/" + namespaceKeys()[i].file); err != nil {
			return fmt.Errorf("%s namespaces aren't enabled in the kernel", n.Type)
		}
		if n.Path == "" {
			continue
		}
		if !filepath.IsAbs(n.Path) || strings.ContainsAny(n.Path, ",\x00") {
			return fmt.Errorf("invalid namespace path %s", n.Path)
		}
		if _, err := os.Stat(n.Path); err != nil {
			return fmt.Errorf("namespace path: %w", err)
		}
	}
	linux := p.Spec.Linux
	if !seen[specs.MountNamespace] && len(linux.MaskedPaths)+len(linux.ReadonlyPaths) > 0 {
		return errors.New("unable to restrict sys entries without a private MNT namespace")
	}
	return nil
}

func (p *Plan) checkUserNamespace() error {
	uids, gids := p.Spec.Linux.UIDMappings, p.Spec.Linux.GIDMappings
	path, ok := p.namespace(specs.UserNamespace)
	switch {
	case !ok && len(uids)+len(gids) > 0:
		return errors.New("user namespace mappings specified, but user namespace isn't enabled in the config")
	case ok && path == "" && (len(uids) == 0 || len(gids) == 0):
		return errors.New("user namespaces enabled, but no namespace path to join nor mappings to apply specified")
	case ok && path != "" && len(uids)+len(gids) > 0:
		// containerd and CRI-O give both. That is wrong only when they differ.
		haveUIDs, haveGIDs, err := namespaceMaps(path)
		if err != nil {
			return err
		}
		if !slices.Equal(uids, haveUIDs) || !slices.Equal(gids, haveGIDs) {
			return errors.New("user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide one")
		}
	}
	return nil
}

func (p *Plan) checkTimeNamespace() error {
	offsets := p.Spec.Linux.TimeOffsets
	path, ok := p.namespace(specs.TimeNamespace)
	switch {
	case !ok && len(offsets) > 0:
		return errors.New("time namespace offsets specified, but time namespace isn't enabled in the config")
	case path != "" && len(offsets) > 0:
		return errors.New("time namespace enabled, but both namespace path and time offsets specified -- you may only provide one")
	}
	for clock := range offsets {
		if clock != "monotonic" && clock != "boottime" {
			return fmt.Errorf("time offset of unknown clock %q (known: monotonic, boottime)", clock)
		}
	}
	return nil
}

func (p *Plan) checkDevices() error {
	for i := range p.Spec.Linux.Devices {
		d := &p.Spec.Linux.Devices[i]
		if !slices.Contains([]string{"p", "u", "c", "b"}, d.Type) {
			return fmt.Errorf("invalid device type %q of %q", d.Type, d.Path)
		}
		if !filepath.IsAbs(d.Path) {
			return fmt.Errorf("invalid device path %q: not absolute", d.Path)
		}
	}
	return nil
}

func (p *Plan) checkCgroup() error {
	resources := p.Spec.Linux.Resources
	if resources == nil {
		return nil
	}
	r, err := cgroup.Resources(resources)
	if err != nil {
		return err
	}
	if !cgroup.V2() {
		if resources.Unified != nil {
			return cgroups.ErrV1NoUnified
		}
		return nil
	}
	_, err = cgroups.ConvertMemorySwapToCgroupV2Value(r.MemorySwap, r.Memory)
	return err
}

func (p *Plan) checkPropagation() error {
	wanted := p.Spec.Linux.RootfsPropagation
	switch strings.TrimPrefix(wanted, "r") {
	case "":
	case "slave", "shared", "unbindable":
	case "private":
		if p.NoPivot {
			return errors.New("rootfsPropagation of [r]private is not safe without pivot_root")
		}
	default:
		return fmt.Errorf("rootfsPropagation=%s is not supported", wanted)
	}
	return nil
}

func (p *Plan) checkRest() error {
	linux := p.Spec.Linux
	if linux.IntelRdt != nil {
		return errors.New("intelRdt is specified in config, but Intel RDT is not enabled")
	}
	if linux.Personality != nil && linux.Personality.Domain != specs.PerLinux && linux.Personality.Domain != specs.PerLinux32 {
		return fmt.Errorf("invalid personality domain %s", linux.Personality.Domain)
	}
	if linux.MountLabel != "" && !selinux.GetEnabled() {
		return errors.New("selinux mount label is specified in config, but selinux is disabled or not supported")
	}
	return nil
}

// checkNetwork checks both kinds of networks: a veth of ours, and devices that are moved in.
func (p *Plan) checkNetwork() error {
	_, ok := p.namespace(specs.NetworkNamespace)
	if len(p.Spec.Linux.NetDevices) > 0 && !ok {
		return errors.New("unable to move network devices without a NET namespace")
	}
	for name, device := range p.Spec.Linux.NetDevices {
		if !validDevice(name) {
			return fmt.Errorf("invalid network device name %q", name)
		}
		if device.Name != "" && !validDevice(device.Name) {
			return fmt.Errorf("invalid network device name %q", device.Name)
		}
	}
	if p.Network == nil {
		return nil
	}
	if !p.Private(specs.NetworkNamespace) {
		return errors.New("--network needs a network namespace of the container's own in config.json")
	}
	if err := p.Network.Validate(); err != nil {
		return fmt.Errorf("invalid network: %w", err)
	}
	return nil
}

// validDevice is the kernel's dev_valid_name.
func validDevice(name string) bool {
	const size = 16 // IFNAMSIZ
	return name != "" && len(name) < size && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n")
}

// checkRootless checks what only matters to a caller that is not root.
func (p *Plan) checkRootless() error {
	path, ok := p.namespace(specs.UserNamespace)
	switch {
	case !ok:
		return errors.New("rootless container requires user namespaces")
	case len(p.Spec.Linux.NetDevices) > 0:
		return errors.New("network devices are not supported for rootless containers")
	case len(p.Spec.Process.User.AdditionalGids) > 0:
		return errors.New("cannot set any additional groups in a rootless container")
	case path != "":
		return nil
	}
	for i := range p.Spec.Mounts {
		for _, option := range p.Spec.Mounts[i].Options {
			maps := p.Spec.Linux.UIDMappings
			text, ok := strings.CutPrefix(option, "uid=")
			if !ok {
				maps = p.Spec.Linux.GIDMappings
				text, ok = strings.CutPrefix(option, "gid=")
			}
			id, err := parseID(text)
			if !ok || err != nil {
				continue
			}
			if _, err := hostID(maps, id); err != nil {
				return fmt.Errorf("cannot specify %s mount option for rootless container: %w", option, err)
			}
		}
	}
	return nil
}
