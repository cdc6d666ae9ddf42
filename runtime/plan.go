package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/runtime/internal/cgroup"
	"github.com/livemigrate/migrate/runtime/internal/seccomp"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ConfigFile is the name of the spec in a bundle.
const ConfigFile = "config.json"

// TenantFile is the file of a bundle in which moves note whose files it holds. Create, and Prepare without an arrival, remove it.
const TenantFile = ".migrate-tenant"

// Network joins a container to a bridge of the host.
type Network = link.Config

// Plan is a container on paper: what Create makes. It is inert, and travels as JSON.
type Plan struct {
	Spec         *specs.Spec `json:"spec"`
	Bundle       string      `json:"bundle"` // absolute
	Rootfs       string      `json:"rootfs"` // absolute
	NoPivot      bool        `json:"no_pivot,omitempty"`
	NoNewKeyring bool        `json:"no_new_keyring,omitempty"`
	Network      *Network    `json:"network,omitempty"`

	// The profile's list of flags is there and empty, which asks for none and is not what no list asks for. JSON leaves
	// it out of the spec.
	NoSeccompFlags bool `json:"no_seccomp_flags,omitempty"`
}

// PlanOptions are what a plan has besides the spec.
type PlanOptions struct {
	NoPivot      bool     // MS_MOVE instead of pivot_root: for a rootfs on a ramdisk
	NoNewKeyring bool     // share the caller's session keyring
	Network      *Network // nil for none of ours

	NoSeccompFlags bool // of the plan whose spec this was, before it went through JSON
}

// LoadSpec reads the spec of a bundle. Parse says whether it can be used.
func LoadSpec(bundle string) (*specs.Spec, error) {
	path := filepath.Join(bundle, ConfigFile)
	data, err := readConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(bundle); err != nil {
			return nil, fmt.Errorf("open bundle: %w", err)
		}
		return nil, fmt.Errorf("JSON specification file %s not found", ConfigFile)
	}
	if err != nil {
		return nil, err
	}
	spec, err := parseSpec(data)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return spec, nil
}

func parseSpec(data []byte) (*specs.Spec, error) {
	var spec *specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, where(data, err)
	}
	if spec == nil {
		return nil, errors.New("config cannot be null")
	}
	return spec, nil
}

// readConfig reads no more than a config could be, and nothing that a reader could hang on.
func readConfig(path string) ([]byte, error) {
	const most = 64 << 20
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read %s: not a regular file", path)
	case info.Size() > most:
		return nil, fmt.Errorf("read %s: its %d bytes are more than any config has (at most %d)", path, info.Size(), most)
	}
	return os.ReadFile(path)
}

// where adds the line to a JSON error that knows its offset: nobody counts bytes.
func where(data []byte, err error) error {
	offset := int64(0)
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = e.Offset
	} else if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset = e.Offset
	}
	if offset <= 0 || offset > int64(len(data)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(data[:offset], []byte("\n")), err)
}

// Parse turns a spec into a plan, or says in one line why no container can be made of it. It needs no root and changes
// nothing; of the host it looks at the rootfs and at the kernel's features. The spec becomes the plan's.
func Parse(bundle string, spec *specs.Spec, o *PlanOptions) (*Plan, error) {
	if o == nil {
		o = &PlanOptions{}
	}
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return nil, fmt.Errorf("find bundle: %w", err)
	}
	if spec == nil {
		return nil, errors.New("config cannot be null")
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	p := &Plan{
		Spec: spec, Bundle: bundle, NoPivot: o.NoPivot, NoNewKeyring: o.NoNewKeyring, Network: o.Network,
		NoSeccompFlags: o.NoSeccompFlags || seccomp.NoFlags(spec.Linux.Seccomp),
	}
	if spec.Root != nil {
		p.Rootfs = spec.Root.Path
		if !filepath.IsAbs(p.Rootfs) {
			p.Rootfs = filepath.Join(bundle, p.Rootfs)
		}
		p.Rootfs = filepath.Clean(p.Rootfs)
	}
	for i := range spec.Mounts {
		// Some engines name mount points as the host sees them; runc has always taken that.
		if inside, ok := strings.CutPrefix(spec.Mounts[i].Destination, p.Rootfs+"/"); ok && p.Rootfs != "/" {
			spec.Mounts[i].Destination = "/" + inside
		}
	}
	if err := p.validate(); err != nil {
		return nil, err
	}
	return p, nil
}

// Private tells whether the container has a namespace of its own: neither the host's nor one given by path.
func (p *Plan) Private(kind specs.LinuxNamespaceType) bool {
	path, ok := p.namespace(kind)
	return ok && path == ""
}

// namespace is the path that a namespace is joined by ("" for a new one), and whether the spec has it at all.
func (p *Plan) namespace(kind specs.LinuxNamespaceType) (path string, ok bool) {
	for _, n := range p.Spec.Linux.Namespaces {
		if n.Type == kind {
			return n.Path, true
		}
	}
	return "", false
}

// HostRoot is who the container's root is on the host: the owner of pipes made for it, until its program begins.
func (p *Plan) HostRoot() (uid, gid int, err error) { return p.onHost(0) }

// HostUser is who the container's program is on the host: the owner of its standard streams once it runs, since it may want to
// open them again. Their group is the container's root's.
func (p *Plan) HostUser() (uid, gid int, err error) {
	if p.Spec.Process == nil {
		return p.HostRoot()
	}
	return p.onHost(p.Spec.Process.User.UID)
}

// onHost maps a user, and root's group. A user namespace joined by path has its own maps, which are read from the kernel.
func (p *Plan) onHost(user uint32) (uid, gid int, err error) {
	path, ok := p.namespace(specs.UserNamespace)
	if !ok {
		return int(user), 0, nil
	}
	uids, gids := p.Spec.Linux.UIDMappings, p.Spec.Linux.GIDMappings
	if path != "" {
		if uids, gids, err = namespaceMaps(path); err != nil {
			return 0, 0, err
		}
	}
	if uid, err = hostID(uids, user); err != nil {
		return 0, 0, fmt.Errorf("uid: %w", err)
	}
	if gid, err = hostID(gids, 0); err != nil {
		return 0, 0, fmt.Errorf("gid: %w", err)
	}
	return uid, gid, nil
}

func hostID(maps []specs.LinuxIDMapping, id uint32) (int, error) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID) + int(id-m.ContainerID), nil
		}
	}
	return 0, fmt.Errorf("id %d of the container is not mapped to the host", id)
}

// cgroupConfig is the plan's cgroup.
func (p *Plan) cgroupConfig(id string, systemd, rootless bool) (*cgroups.Cgroup, error) {
	return cgroup.Config(p.Spec, &cgroup.Options{ID: id, Systemd: systemd, Rootless: rootless, OwnerUID: p.cgroupOwner()})
}

// cgroupOwner is who the cgroup is handed to: the process's user on the host, when the container can write to it, which
// takes a cgroup namespace and a cgroup mount that is not read-only. nil otherwise.
func (p *Plan) cgroupOwner() *int {
	if !p.Private(specs.CgroupNamespace) || p.Spec.Process == nil || len(p.Spec.Linux.UIDMappings) == 0 {
		return nil
	}
	for i := range p.Spec.Mounts {
		m := &p.Spec.Mounts[i]
		if m.Source == "cgroup" && filepath.Clean(m.Destination) == "/sys/fs/cgroup" && !slices.Contains(m.Options, "ro") {
			if uid, err := hostID(p.Spec.Linux.UIDMappings, p.Spec.Process.User.UID); err == nil {
				return &uid
			}
		}
	}
	return nil
}

// clone copies by way of JSON: a plan is nothing that JSON does not carry.
func (p *Plan) clone() *Plan {
	data, err := json.Marshal(p)
	out := &Plan{}
	if err == nil {
		err = json.Unmarshal(data, out)
	}
	if err != nil {
		panic(fmt.Sprintf("a plan is not JSON: %v", err)) // it was parsed from JSON, and is made of plain values
	}
	return out
}
