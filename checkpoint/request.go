package checkpoint

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/runtime"
)

func ptr[T any](v T) *T { return &v }

// request is what CRIU is asked for. The keys of external resources are runc's, so that it can restore what we dump.
func (d *dump) request() (*criu.Request, error) {
	o, plan := d.options, d.container.Plan()
	mode, err := criu.ParseCgroupMode(o.ManageCgroupsMode, o.cgroupMode(plan))
	if err != nil {
		return nil, err
	}
	options := &criu.Options{
		Pid:               ptr(int32(d.container.InitPid())),
		Root:              &plan.Rootfs,
		ManageCgroups:     ptr(mode != rpc.CriuCgMode_IGNORE),
		ManageCgroupsMode: &mode,
		FreezeCgroup:      ptr(d.container.FreezerPath()),
		LeaveRunning:      &o.LeaveRunning,
		TcpEstablished:    &o.TCPEstablished,
		TcpSkipInFlight:   &o.TCPSkipInFlight,
		TcpClose:          &o.TCPClose,
		ExtUnixSk:         &o.ExternalUnix,
		ShellJob:          &o.ShellJob,
		FileLocks:         &o.FileLocks,
		LinkRemap:         &o.LinkRemap,
		AutoDedup:         &o.AutoDedup,
		LazyPages:         &o.LazyPages,
		OrphanPtsMaster:   ptr(true),
		NetworkLock:       d.networkLock(),
	}
	if o.EmptyNetwork {
		options.EmptyNs = ptr(uint32(syscall.CLONE_NEWNET))
	}
	if o.ParentPath != "" && !o.compare {
		options.ParentImg, options.TrackMem = &o.ParentPath, ptr(true)
	}
	if o.LogLevel != 0 {
		options.LogLevel = &o.LogLevel
	}
	if _, v1 := d.container.State().CgroupPaths["freezer"]; v1 && o.NoManifest && mode != rpc.CriuCgMode_IGNORE {
		// A restore of ours needs CRIU only for the cgroup namespace, and the runtime sets the limits: one hierarchy will do.
		// The properties of all of them would be read inside the freeze.
		options.CgroupDumpController = []string{"freezer"}
	}
	if config := plan.Spec.Annotations[criu.ConfigAnnotation]; config != "" {
		options.ConfigFile = &config
	}
	for _, add := range []func(*criu.Options, *runtime.Plan) error{
		d.addGhostLimit, d.addPageServer, d.addNamespaces, d.addMounts, d.addMaskedPaths,
	} {
		if err := add(options, plan); err != nil {
			return nil, err
		}
	}
	if err := d.addWay(options); err != nil {
		return nil, err
	}
	return &criu.Request{ImagesDir: o.ImagesDir, WorkDir: o.WorkDir, LogFile: dumpLog, Options: options}, nil
}

// cgroupMode is the default. A restore of ours does not look at the cgroups in the images, except for a cgroup namespace,
// which only CRIU can make; runc's does. To save them costs 16 to 26 ms in the freeze.
func (o *Options) cgroupMode(plan *runtime.Plan) criu.CgroupMode {
	if o.NoManifest && !plan.Private(specs.CgroupNamespace) {
		return rpc.CriuCgMode_IGNORE
	}
	return rpc.CriuCgMode_SOFT
}

// networkLock: a container that we cut off is locked already, and without kept connections there is nothing that a packet could
// spoil: CRIU's own lock costs 50 ms at each end. Its default needs iptables, the other way only the kernel's nftables.
func (d *dump) networkLock() *criu.NetworkLock {
	method := rpc.CriuNetworkLockMethod_SKIP
	if d.plug == nil && d.options.TCPEstablished {
		d.locked = true
		method = rpc.CriuNetworkLockMethod_IPTABLES
		if _, err := exec.LookPath("iptables-restore"); err != nil {
			method = rpc.CriuNetworkLockMethod_NFTABLES
		}
	}
	return &method
}

func (d *dump) addGhostLimit(options *criu.Options, _ *runtime.Plan) error {
	limit := d.options.GhostLimit
	if limit == 0 {
		limit = DefaultGhostLimit
	}
	if limit < 0 || limit > 1<<32-1 {
		return fmt.Errorf("ghost limit of %d bytes is out of range (up to 4 GiB)", limit)
	}
	options.GhostLimit = ptr(uint32(limit))
	options.External = append(options.External, d.options.ExternalFiles...)
	d.options.log().Debug("unlinked open files are saved too", "limit", limit)
	return nil
}

func (d *dump) addPageServer(options *criu.Options, _ *runtime.Plan) error {
	if d.options.PageServer == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(d.options.PageServer)
	if err != nil || host == "" || port == "" {
		return errors.New("use --page-server ADDRESS:PORT to specify page server")
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("page server %q: invalid port number", d.options.PageServer)
	}
	options.Ps = &criu.PageServer{Address: &host, Port: ptr(int32(number))}
	return nil
}

// addNamespaces names the namespaces that are not the container's own: they are given again at restore. A network of ours
// is one of them, made anew with its link at the other end; inside a user namespace CRIU has to make it, as its own.
func (d *dump) addNamespaces(options *criu.Options, plan *runtime.Plan) error {
	for _, kind := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.PIDNamespace} {
		path := plan.NamespacePath(kind)
		if kind == specs.NetworkNamespace && plan.Network != nil && !plan.Private(specs.UserNamespace) {
			path = fmt.Sprintf("/proc/%d/ns/net", d.container.InitPid())
		}
		if path == "" || kind == specs.NetworkNamespace && d.client.InNetwork() {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("find namespace: %w", err)
		}
		inode := info.Sys().(*syscall.Stat_t).Ino
		options.External = append(options.External, criu.ExternalNamespace(kind, inode))
	}
	return nil
}

// addMounts names the mounts whose content stays where it is: binds and the like.
func (d *dump) addMounts(options *criu.Options, plan *runtime.Plan) error {
	mounts, err := d.container.ExternalMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		destination, err := criu.MountKey(plan.Rootfs, m.Destination)
		if err != nil {
			return err
		}
		options.ExtMnt = append(options.ExtMnt, &criu.ExtMount{Key: &destination, Val: &destination})
	}
	d.addTmpfs(options)
	return nil
}

// addMaskedPaths: a masked file has /dev/null mounted over it. Of a masked directory's tmpfs
// either CRIU knows how to save it, or findTmpfs has named it.
func (d *dump) addMaskedPaths(options *criu.Options, plan *runtime.Plan) error {
	for _, path := range plan.Spec.Linux.MaskedPaths {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/root/%s", d.container.InitPid(), path))
		if errors.Is(err, os.ErrNotExist) || err == nil && info.IsDir() {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at masked path: %w", err)
		}
		options.ExtMnt = append(options.ExtMnt, &criu.ExtMount{Key: &path, Val: ptr("/dev/null")})
	}
	return nil
}
