package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/livemigrate/migrate/runtime/internal/hooks"
	"github.com/livemigrate/migrate/runtime/internal/rdt"
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
	const longest = 64 // __NEW_UTS_LEN
	switch {
	case len(p.Spec.Hostname) > longest:
		return fmt.Errorf("hostname has %d bytes, more than the %d that the kernel takes", len(p.Spec.Hostname), longest)
	case len(p.Spec.Domainname) > longest:
		return fmt.Errorf("domainname has %d bytes, more than the %d that the kernel takes", len(p.Spec.Domainname), longest)
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
	cgroups := map[string]bool{}
	for i := range p.Spec.Mounts {
		m := &p.Spec.Mounts[i]
		destination := filepath.Clean("/" + m.Destination)
		switch {
		case m.Destination == "":
			return fmt.Errorf("invalid mount %d: it has no destination", i)
		case !filepath.IsAbs(m.Destination) && slices.Contains(strings.Split(m.Destination, "/"), ".."):
			// A relative one is deprecated and taken as if it started at the root; what ".." means then is anybody's guess.
			return fmt.Errorf("invalid mount on %q: a relative destination with \"..\"", m.Destination)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			if cgroups[destination] {
				return fmt.Errorf("invalid mount on %q: cgroups are mounted there already", m.Destination)
			}
			cgroups[destination] = true
		}
		if err := cmp.Or(checkMap("uid", m.UIDMappings), checkMap("gid", m.GIDMappings)); err != nil {
			return fmt.Errorf("invalid mount on %q: %w", m.Destination, err)
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

func (p *Plan) checkDevices() error {
	given := map[string]*specs.LinuxDevice{}
	for i := range p.Spec.Linux.Devices {
		d := &p.Spec.Linux.Devices[i]
		if !slices.Contains([]string{"p", "u", "c", "b"}, d.Type) {
			return fmt.Errorf("invalid device type %q of %q", d.Type, d.Path)
		}
		if !filepath.IsAbs(d.Path) {
			return fmt.Errorf("invalid device path %q: not absolute", d.Path)
		}
		if strings.ContainsRune(d.Path, 0) {
			return fmt.Errorf("invalid device path %q: it contains a null byte", d.Path)
		}
		// The kernel's dev_t has 12 and 20 bits for them.
		if d.Type != "p" && (d.Major < 0 || d.Major >= 1<<12 || d.Minor < 0 || d.Minor >= 1<<20) {
			return fmt.Errorf("invalid device number %d:%d of %q", d.Major, d.Minor, d.Path)
		}
		// Engines give the same device twice. Two that differ would be whichever came first.
		path := filepath.Clean(d.Path)
		if other := given[path]; other != nil && (other.Type != d.Type || other.Major != d.Major || other.Minor != d.Minor) {
			return fmt.Errorf("device %q is given twice: %s %d:%d and %s %d:%d", d.Path, other.Type, other.Major, other.Minor, d.Type, d.Major, d.Minor)
		}
		given[path] = d
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
	if err := cmp.Or(checkCPUSet("cpus", r.CpusetCpus), checkCPUSet("mems", r.CpusetMems)); err != nil {
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

// checkCPUSet knows the grammar of the kernel's bitmap_parselist. Which CPUs there are is for the cgroup to say: its
// parent may have fewer than the machine.
func checkCPUSet(file, list string) error {
	part := regexp.MustCompile(`^(all|(\d+|N)(-(\d+|N)(:\d+/\d+)?)?)$`)
	for _, text := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		match := part.FindStringSubmatch(text)
		if match == nil {
			return fmt.Errorf("invalid cpuset %s %q: %q is no number and no range", file, list, text)
		}
		first, errFirst := strconv.Atoi(match[2])
		last, errLast := strconv.Atoi(match[4])
		if errFirst == nil && errLast == nil && first > last {
			return fmt.Errorf("invalid cpuset %s %q: range %s ends before it starts", file, list, text)
		}
	}
	return nil
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
		if err := rdt.Check(linux.IntelRdt, rdt.Root()); err != nil {
			return err
		}
	}
	if linux.Personality != nil && linux.Personality.Domain != specs.PerLinux && linux.Personality.Domain != specs.PerLinux32 {
		return fmt.Errorf("invalid personality domain %s", linux.Personality.Domain)
	}
	if linux.Personality != nil && len(linux.Personality.Flags) > 0 {
		// The specification has none yet. runc warns and goes on: a program that needs one would fail later.
		return fmt.Errorf("personality flag %s is not supported", linux.Personality.Flags[0])
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
	if err := p.checkNetDevices(); err != nil {
		return err
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

// checkNetDevices refuses names that the kernel would not take, or that are taken inside. They go by name, so that the
// same one is the error each time.
func (p *Plan) checkNetDevices() error {
	taken := map[string]string{}
	if p.Network != nil {
		taken[cmp.Or(p.Network.Interface, link.DefaultInterface)] = "the device of --network"
	}
	for _, name := range slices.Sorted(maps.Keys(p.Spec.Linux.NetDevices)) {
		inside := cmp.Or(p.Spec.Linux.NetDevices[name].Name, name)
		for _, name := range []string{name, inside} {
			switch {
			case !validDevice(name):
				return fmt.Errorf("invalid network device name %q", name)
			case name == "lo":
				return errors.New("invalid network device name \"lo\": each network namespace has its own")
			}
		}
		if other := taken[inside]; other != "" {
			return fmt.Errorf("network device %s would have the name %q of %s in the container", name, inside, other)
		}
		taken[inside] = name
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
