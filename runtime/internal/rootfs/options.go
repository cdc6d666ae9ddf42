package rootfs

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mount is one entry of the spec's mounts, its options understood.
type mount struct {
	source, fstype string
	dest           string // absolute and clean, seen from the container's root

	bind, recursive    bool
	set, clear         uint64 // MOUNT_ATTR_* of this mount alone
	recSet, recClear   uint64 // of it and everything below
	atime              bool   // an atime mode was asked for
	refusesAtime       bool   // "atime": noatime is not wanted
	propagation        []propagation
	superblock         []string // flags of the filesystem itself: sync, dirsync, lazytime ...
	options            []string // the filesystem's own, as "key" or "key=value"
	copyUp             bool
	idmap, idmapRecurs bool
}

type propagation struct {
	kind      uint64 // MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE
	recursive bool
}

// attribute is a mount flag by its name in mount(8): the bits it sets and those it clears.
type attribute struct{ set, clear uint64 }

// The atime modes exclude each other: setting one clears the field. relatime is the zero of that field.
func attributes() map[string]attribute {
	return map[string]attribute{
		"ro":            {set: unix.MOUNT_ATTR_RDONLY},
		"rw":            {clear: unix.MOUNT_ATTR_RDONLY},
		"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
		"suid":          {clear: unix.MOUNT_ATTR_NOSUID},
		"nodev":         {set: unix.MOUNT_ATTR_NODEV},
		"dev":           {clear: unix.MOUNT_ATTR_NODEV},
		"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
		"exec":          {clear: unix.MOUNT_ATTR_NOEXEC},
		"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
		"diratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
		"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
		"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
		"relatime":      {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
		"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
		"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
		"atime":         {clear: unix.MOUNT_ATTR__ATIME},
		"norelatime":    {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
		"nostrictatime": {clear: unix.MOUNT_ATTR__ATIME},
	}
}

func propagations() map[string]uint64 {
	return map[string]uint64{
		"private":    unix.MS_PRIVATE,
		"slave":      unix.MS_SLAVE,
		"shared":     unix.MS_SHARED,
		"unbindable": unix.MS_UNBINDABLE,
	}
}

// superblockFlags are kept by the filesystem, not by the mount, so a bind mount cannot change them.
func superblockFlags() map[string]bool {
	return map[string]bool{
		"sync": true, "async": true, "dirsync": true, "lazytime": true, "nolazytime": true, "mand": true, "nomand": true,
	}
}

// ignoredOptions have no effect here: "remount" and "defaults" say nothing new, the rest left the kernel.
func ignoredOptions() map[string]bool {
	return map[string]bool{
		"defaults": true, "remount": true, "silent": true, "loud": true, "iversion": true, "noiversion": true, "acl": true,
	}
}

// KnownOptions lists the mount options that are understood here, for the features document.
func KnownOptions() []string {
	names := []string{"bind", "rbind", "tmpcopyup", "idmap", "ridmap"}
	for name := range attributes() {
		names = append(names, name, "r"+name)
	}
	for name := range propagations() {
		names = append(names, name, "r"+name)
	}
	for name := range superblockFlags() {
		names = append(names, name)
	}
	for name := range ignoredOptions() {
		names = append(names, name)
	}
	return names
}

// parseMount understands one mount of the spec. Relative sources of bind mounts start at the bundle.
func parseMount(m *specs.Mount, bundle string) (*mount, error) {
	p := &mount{source: m.Source, fstype: m.Type, dest: filepath.Clean("/" + m.Destination)}
	attrs, props, super, ignored := attributes(), propagations(), superblockFlags(), ignoredOptions()
	for _, option := range m.Options {
		recName, isRec := strings.CutPrefix(option, "r")
		switch {
		case option == "bind" || option == "rbind":
			p.bind, p.recursive = true, p.recursive || option == "rbind"
		case option == "tmpcopyup":
			p.copyUp = true
		case option == "idmap" || option == "ridmap":
			p.idmap, p.idmapRecurs = true, option == "ridmap"
		case has(attrs, option):
			p.set, p.clear = attrs[option].merge(p.set, p.clear)
			p.noteAtime(option)
		case has(props, option):
			p.propagation = append(p.propagation, propagation{kind: props[option]})
		case super[option]:
			p.superblock = append(p.superblock, option)
		case option == "" || ignored[option]: // buildah 1.28 gives an empty one for a volume without options
		case isRec && has(attrs, recName):
			p.recSet, p.recClear = attrs[recName].merge(p.recSet, p.recClear)
		case isRec && has(props, recName):
			p.propagation = append(p.propagation, propagation{kind: props[recName], recursive: true})
		default:
			p.options = append(p.options, splitOption(option)...)
		}
	}
	if len(m.UIDMappings)+len(m.GIDMappings) > 0 {
		p.idmap = true
	}
	if m.Type == "bind" {
		p.bind = true
	}
	if p.bind {
		if p.source == "" {
			return nil, fmt.Errorf("bind mount on %s has no source", m.Destination)
		}
		p.source = filepath.Clean(p.source)
		if !filepath.IsAbs(p.source) {
			p.source = filepath.Join(bundle, p.source)
		}
	} else if p.idmap {
		return nil, fmt.Errorf("mount on %s: only bind mounts can have id maps", m.Destination)
	}
	if p.copyUp && p.fstype != "tmpfs" {
		return nil, fmt.Errorf("mount on %s: tmpcopyup is for tmpfs only", m.Destination)
	}
	return p, nil
}

// kernelTree says that a procfs or sysfs of the container's own is mounted.
func (m *mount) kernelTree() bool {
	return !m.bind && (m.fstype == "proc" || m.fstype == "sysfs")
}

// merge lets a later option win over an earlier one.
func (a attribute) merge(set, unset uint64) (uint64, uint64) {
	return set&^a.clear | a.set, unset&^a.set | a.clear
}

// noteAtime keeps what the bits cannot say: relatime is the same zero as no mode at all.
func (m *mount) noteAtime(option string) {
	switch option {
	case "relatime", "noatime", "strictatime":
		m.atime, m.refusesAtime = true, false
	case "atime":
		m.atime, m.refusesAtime = false, true
	}
}

// splitOption cuts a list in one option ("mode=755,size=1m") apart, except where quotes say that a comma is meant.
func splitOption(option string) []string {
	if strings.ContainsAny(option, `"\`) {
		return []string{option}
	}
	return strings.Split(option, ",")
}

func has[V any](m map[string]V, key string) bool {
	_, ok := m[key]
	return ok
}
