package restore

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/runtime"
)

func ptr[T any](v T) *T { return &v }

// request is what CRIU is asked for. The keys of external resources are runc's, so that what it dumped restores here.
func (a *attempt) request() (*criu.Request, error) {
	o := a.options
	mode, err := o.cgroupMode(a.plan)
	if err != nil {
		return nil, err
	}
	options := &criu.Options{
		Root:              ptr(a.prepared.Root()),
		RstSibling:        ptr(true),
		EvasiveDevices:    ptr(true),
		OrphanPtsMaster:   ptr(true),
		ManageCgroups:     ptr(mode != rpc.CriuCgMode_IGNORE),
		ManageCgroupsMode: &mode,
		TcpEstablished:    &o.TCPEstablished,
		TcpClose:          &o.TCPClose,
		ExtUnixSk:         &o.ExternalUnix,
		ShellJob:          &o.ShellJob,
		FileLocks:         &o.FileLocks,
		AutoDedup:         ptr(o.AutoDedup || a.unpacked != nil && !a.lazyPages),
		LazyPages:         &a.lazyPages,
	}
	if o.LSMProfile != "" {
		options.LsmProfile = &o.LSMProfile
	}
	if o.LSMMountContext != "" {
		options.LsmMountContext = &o.LSMMountContext
	}
	if o.LogLevel != 0 {
		options.LogLevel = &o.LogLevel
	}
	if config := a.plan.Spec.Annotations[criu.ConfigAnnotation]; config != "" {
		options.ConfigFile = &config
	}
	a.addStdio(options)
	if err := a.addNamespaces(options); err != nil {
		return nil, err
	}
	if err := a.addMounts(options); err != nil {
		return nil, err
	}
	if mode != rpc.CriuCgMode_IGNORE {
		if err := a.addCgroups(options); err != nil {
			return nil, err
		}
	}
	request := &criu.Request{ImagesDir: o.ImagesDir, WorkDir: o.WorkDir, LogFile: restoreLog, Options: options}
	if a.feeding != nil {
		request.ImagesDir, request.WorkDir = a.feeding.images, a.feeding.work
	}
	if a.unpacked != nil {
		request.ImagesDir, request.WorkDir = a.unpacked.Path(), cmp.Or(request.WorkDir, o.ImagesDir)
	}
	return request, nil
}

// cgroupMode is by default: the runtime places the processes, and CRIU leaves cgroups alone, so that a restore never ends
// up in the cgroup of the old container. Only CRIU can make a cgroup namespace, though.
func (o *Options) cgroupMode(plan *runtime.Plan) (criu.CgroupMode, error) {
	otherwise := rpc.CriuCgMode_IGNORE
	if plan.Private(specs.CgroupNamespace) {
		otherwise = rpc.CriuCgMode_SOFT
	}
	return criu.ParseCgroupMode(o.ManageCgroupsMode, otherwise)
}

// addStdio puts the new pipes in the place of the old ones. Other descriptors, like /dev/null, come back by their names.
func (a *attempt) addStdio(options *criu.Options) {
	seen := map[string]bool{} // stdout and stderr are often one pipe
	for i, label := range a.descriptors {
		if i >= stdioFiles || !isPipe(label) || seen[label] {
			continue
		}
		seen[label] = true
		options.InheritFd = append(options.InheritFd, &criu.InheritFd{Key: &label, Fd: ptr(int32(criu.FirstFile + i))})
	}
}

func isPipe(label string) bool {
	return strings.HasPrefix(label, "pipe:")
}

// addNamespaces hands over the namespaces that are not the container's own, and says what becomes of its network.
func (a *attempt) addNamespaces(options *criu.Options) error {
	for i, kind := range externalKinds() {
		if a.plan.NamespacePath(kind) == "" && (kind != specs.NetworkNamespace || a.prepared.NetNS() == nil) {
			continue
		}
		options.InheritFd = append(options.InheritFd, &criu.InheritFd{
			Key: ptr(criu.NamespaceKey(kind)), Fd: ptr(int32(criu.FirstFile + stdioFiles + i)),
		})
	}
	for _, ns := range a.plan.Spec.Linux.Namespaces {
		if ns.Path == "" || criu.NamespaceKey(ns.Type) != "" {
			continue
		}
		name, err := joinName(ns.Type)
		if err != nil {
			return err
		}
		options.JoinNs = append(options.JoinNs, &criu.JoinNS{Ns: &name, NsFile: ptr(ns.Path)})
	}
	own := a.plan.Private(specs.NetworkNamespace) && a.prepared.NetNS() == nil
	a.emptyNet = own && (a.options.EmptyNetwork || !a.set.HasNetwork())
	switch {
	case a.emptyNet:
		options.EmptyNs = ptr(uint32(syscall.CLONE_NEWNET))
	case makesVeth(a.plan):
		inside := a.plan.Network.Interface
		if inside == "" {
			inside = "eth0"
		}
		options.External = append(options.External, fmt.Sprintf("veth[%s]:hostend", inside))
	}
	return nil
}

// joinName is CRIU's name of a namespace that it joins by path.
func joinName(kind specs.LinuxNamespaceType) (string, error) {
	switch kind {
	case specs.IPCNamespace, specs.UTSNamespace, specs.UserNamespace, specs.TimeNamespace:
		return string(kind), nil
	case specs.MountNamespace:
		return "mnt", nil
	default:
		return "", fmt.Errorf("criu cannot join a %s namespace by path: give the container its own", kind)
	}
}

// addMounts says where the mounts come from whose content is not in the images.
func (a *attempt) addMounts(options *criu.Options) error {
	mounts, err := a.prepared.ExternalMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		destination, err := criu.MountKey(a.plan.Rootfs, m.Destination)
		if err != nil {
			return err
		}
		options.ExtMnt = append(options.ExtMnt, &criu.ExtMount{Key: &destination, Val: ptr(m.Source)})
	}
	options.ExtMnt = append(options.ExtMnt, a.tmpfs...)
	return nil
}

// placeCRIU has CRIU in the container's cgroups, as with runc, where it has to make a cgroup namespace. A cgroup takes a
// process in only after all processors have taken note, which takes the kernel some milliseconds.
func placeCRIU(p *runtime.Prepared, o *Options, client *Client) error {
	mode, err := o.cgroupMode(p.Plan())
	if err != nil || mode == rpc.CriuCgMode_IGNORE {
		return err
	}
	return p.PlaceInit(client.Pid())
}

// cgroupsOf is where a process is in every hierarchy, a line each.
func cgroupsOf(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("read cgroups: %w", err)
	}
	return string(text), nil
}

// addCgroups moves the images' cgroups to the container's: where CRIU itself is, it names as the root of each hierarchy.
func (a *attempt) addCgroups(options *criu.Options) (err error) {
	if a.cgroups, err = cgroupsOf(a.client.Pid()); err != nil {
		return err
	}
	for line := range strings.Lines(a.cgroups) {
		// 4:memory:/path
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			return fmt.Errorf("read cgroups: line %q", line)
		}
		options.CgRoot = append(options.CgRoot, &criu.CgroupRoot{Ctrl: ptr(fields[1]), Path: ptr(fields[2])})
	}
	return nil
}
