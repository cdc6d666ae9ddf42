package rootfs

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestMountOptionsMeanWhatMountSays(t *testing.T) {
	const ro, nosuid, nodev, noexec = unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NOSUID, unix.MOUNT_ATTR_NODEV, unix.MOUNT_ATTR_NOEXEC
	tests := []struct {
		name    string
		options string
		check   func(*mount) bool
	}{
		{"set", "nosuid nodev noexec ro", func(m *mount) bool { return m.set == nosuid|nodev|noexec|ro && m.clear == 0 }},
		{"last wins", "ro rw nosuid suid nosuid", func(m *mount) bool { return m.set == nosuid && m.clear == ro }},
		{"atime modes exclude each other", "noatime strictatime", func(m *mount) bool {
			return m.set == unix.MOUNT_ATTR_STRICTATIME && m.clear == unix.MOUNT_ATTR__ATIME
		}},
		{"relatime is a zero that is asked for", "relatime", func(m *mount) bool { return m.set == 0 && m.clear == unix.MOUNT_ATTR__ATIME }},
		{"recursive", "rro rnosuid rrw", func(m *mount) bool { return m.recSet == nosuid && m.recClear == ro && m.set == 0 }},
		{"rbind is a tree", "rbind", func(m *mount) bool { return m.bind && m.recursive }},
		{"bind is not", "bind", func(m *mount) bool { return m.bind && !m.recursive }},
		{"propagation in its order", "rprivate shared", func(m *mount) bool {
			return slices.Equal(m.propagation, []propagation{{unix.MS_PRIVATE, true}, {unix.MS_SHARED, false}})
		}},
		{"superblock", "sync lazytime", func(m *mount) bool { return slices.Equal(m.superblock, []string{"sync", "lazytime"}) }},
		{"the filesystem's own", "size=64k,mode=755 nr_inodes=5 newinstance", func(m *mount) bool {
			return slices.Equal(m.options, []string{"size=64k", "mode=755", "nr_inodes=5", "newinstance"})
		}},
		{"quoted comma", `context="a:b:c0,c1"`, func(m *mount) bool { return len(m.options) == 1 }},
		{"an empty one", " rw", func(m *mount) bool { return len(m.options) == 0 }},
		{"no options of the filesystem", "defaults remount silent", func(m *mount) bool { return m.set|m.clear == 0 && len(m.options) == 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := parseMount(&specs.Mount{Type: "tmpfs", Source: "s", Destination: "d/../e/", Options: strings.Split(tt.options, " ")}, "/bundle")
			if err != nil || !tt.check(m) {
				t.Errorf("parsed to %+v, %v", m, err)
			}
			if m.dest != "/e" {
				t.Errorf("destination %q", m.dest)
			}
		})
	}
}

func TestImpossibleMountsAreRefused(t *testing.T) {
	ids := []specs.LinuxIDMapping{{Size: 1}}
	tests := []struct {
		name  string
		mount specs.Mount
		want  string
	}{
		{"bind without a source", specs.Mount{Type: "bind", Destination: "/d"}, "has no source"},
		{"id map of a filesystem", specs.Mount{Type: "tmpfs", Destination: "/d", UIDMappings: ids, GIDMappings: ids}, "only bind mounts"},
		{"id map without a user namespace", specs.Mount{Type: "bind", Source: "/s", Destination: "/d", Options: []string{"idmap"}}, "must have both uid and gid"},
		{"half an id map", specs.Mount{Type: "bind", Source: "/s", Destination: "/d", UIDMappings: ids}, "must have both uid and gid"},
		{"tmpcopyup of a proc", specs.Mount{Type: "proc", Destination: "/d", Options: []string{"tmpcopyup"}}, "tmpfs only"},
		{"bind with data", specs.Mount{Type: "bind", Source: "/s", Destination: "/d", Options: []string{"size=1"}}, "filesystem-specific"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckMounts(&specs.Spec{Mounts: []specs.Mount{tt.mount}}, "/bundle")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("CheckMounts: %v, want %q", err, tt.want)
			}
		})
	}
}
