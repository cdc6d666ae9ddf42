package criu

import (
	"fmt"
	"slices"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// How a container's outer world is named in its images. All of it is runc's convention: its images restore with us, and
// ours with it.

// ConfigAnnotation names a configuration file of CRIU's for one container; its settings win over ours. No other
// configuration file is read.
const ConfigAnnotation = "org.criu.config"

// NamespaceKey is the name that a network or pid namespace given by path has in the images; at restore an inherited
// descriptor of the same key stands for it.
func NamespaceKey(kind specs.LinuxNamespaceType) string {
	switch kind {
	case specs.NetworkNamespace:
		return "extRootNetNS"
	case specs.PIDNamespace:
		return "extRootPidNS"
	default:
		return ""
	}
}

// ExternalNamespace tells a dump that the namespace with this inode is not the container's own.
func ExternalNamespace(kind specs.LinuxNamespaceType, inode uint64) string {
	name := "net"
	if kind == specs.PIDNamespace {
		name = "pid"
	}
	return fmt.Sprintf("%s[%d]:%s", name, inode, NamespaceKey(kind))
}

// ExternalFile tells a dump that the open file with this inode, on the mount with this id, is somebody else's affair.
func ExternalFile(mount int, inode uint64) string { return fmt.Sprintf("file[%x:%x]", mount, inode) }

// MountKey is the name of a mount in the images: where it really is in the container, links of the rootfs followed.
func MountKey(rootfs, destination string) (string, error) {
	path, err := securejoin.SecureJoin(rootfs, destination)
	if err != nil {
		return "", fmt.Errorf("resolve mount %s: %w", destination, err)
	}
	return path[len(rootfs):], nil
}

// OwnTmpfs are the keys of the mounts at which the runtime mounts a tmpfs of the container's: by its config, or as a mask.
func OwnTmpfs(rootfs string, spec *specs.Spec) ([]string, error) {
	own := slices.Clone(spec.Linux.MaskedPaths)
	for _, m := range spec.Mounts {
		if m.Type != "tmpfs" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			continue
		}
		path, err := MountKey(rootfs, m.Destination)
		if err != nil {
			return nil, err
		}
		own = append(own, path)
	}
	return own, nil
}

// ParseCgroupMode reads --manage-cgroups-mode; otherwise is the mode of an empty one.
func ParseCgroupMode(mode string, otherwise CgroupMode) (CgroupMode, error) {
	switch mode {
	case "":
		return otherwise, nil
	case "soft":
		return rpc.CriuCgMode_SOFT, nil
	case "full":
		return rpc.CriuCgMode_FULL, nil
	case "strict":
		return rpc.CriuCgMode_STRICT, nil
	case "ignore":
		return rpc.CriuCgMode_IGNORE, nil
	default:
		return 0, fmt.Errorf("invalid manage-cgroups-mode value %q (soft, full, strict or ignore)", mode)
	}
}
