package rootfs

import (
	"errors"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/testutil"
)

// What a bind mount's options make of the flags that its source has on the host.
func TestBindMountHasTheFlagsThatMount8WouldGive(t *testing.T) {
	testutil.Root(t)
	const (
		ro, nosuid, nodev, noexec = unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NOSUID, unix.MOUNT_ATTR_NODEV, unix.MOUNT_ATTR_NOEXEC
		nosymfollow, nodiratime   = unix.MOUNT_ATTR_NOSYMFOLLOW, unix.MOUNT_ATTR_NODIRATIME
		noatime, strictatime      = unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR_STRICTATIME
		relatime                  = 0
	)
	for _, tt := range []struct {
		name    string
		source  uint64
		options []string
		want    uint64
	}{
		{"nothing asked for keeps all", ro | noexec | nosymfollow | nodiratime, nil, ro | noexec | nosymfollow | nodiratime},
		{"one unwanted clears all", ro | noexec | nosymfollow, []string{"rw"}, relatime},
		{"one wanted clears the others", nodev | nosuid, []string{"ro"}, ro},
		{"atime stays", noatime, []string{"ro", "norelatime"}, ro | noatime},
		{"atime is kept though unwanted", noatime | nosuid, []string{"suid", "atime"}, noatime},
		{"relatime replaces it", noatime, []string{"relatime"}, relatime},
		{"nodiratime means relatime", noatime, []string{"nodiratime"}, nodiratime},
		{"nodiratime and another", noatime, []string{"nodiratime", "strictatime"}, nodiratime | strictatime},
		{"nodiratime and norelatime", noatime, []string{"nodiratime", "norelatime"}, nodiratime},
		{"strictatime ends nodiratime", nodiratime, []string{"strictatime"}, strictatime},
		{"symfollow clears", nodev | nosymfollow, []string{"symfollow"}, relatime},
		{"nodiratime is kept with the mode", noatime | nodiratime, []string{"rw"}, noatime | nodiratime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mnt, err := clone(unix.AT_FDCWD, "/", false)
			if err != nil {
				t.Fatal(err)
			}
			defer mnt.Close()
			if err := setAttributes(mnt, tt.source, plainFlags&^tt.source|atimeFlags, false); err != nil {
				t.Fatal(err)
			}
			m, err := parseMount(&specs.Mount{Destination: "/mnt", Source: "/", Type: "bind", Options: tt.options}, "/")
			if err != nil {
				t.Fatal(err)
			}
			if err := setBindAttributes(m, mnt); err != nil {
				t.Fatal(err)
			}
			var st unix.Statfs_t
			if err := unix.Fstatfs(int(mnt.Fd()), &st); err != nil {
				t.Fatal(err)
			}
			if got := attributesOf(uint64(st.Flags)); got != tt.want {
				t.Errorf("flags are %#x, want %#x", got, tt.want)
			}
		})
	}
}

// attributesOf also knows what the source's filesystem cannot: all but ST_NOSYMFOLLOW have the same bits.
func attributesOf(flags uint64) uint64 {
	const stNoSymfollow = 0x2000
	attrs := flags&(unix.ST_RDONLY|unix.ST_NOSUID|unix.ST_NODEV|unix.ST_NOEXEC) | atimeOf(flags)
	if flags&stNoSymfollow != 0 {
		attrs |= unix.MOUNT_ATTR_NOSYMFOLLOW
	}
	return attrs
}

func TestLockedFlagsAreNotSilentlyKept(t *testing.T) {
	testutil.Root(t)
	for _, tt := range []struct {
		source  uint64
		options []string
		refused bool
	}{
		{unix.MOUNT_ATTR_NOATIME, []string{"atime"}, true},
		{unix.MOUNT_ATTR_NOATIME, []string{"strictatime"}, true},
		{unix.MOUNT_ATTR_NODIRATIME, []string{"strictatime"}, true},
		{unix.MOUNT_ATTR_NODIRATIME, []string{"diratime"}, true},
		{0, []string{"noatime"}, true},
		{0, []string{"nodiratime"}, true},
		{0, []string{"relatime", "ro"}, false},
		{unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_NODIRATIME, []string{"norelatime"}, false},
		{unix.MOUNT_ATTR_NOATIME, []string{"noatime", "nodev"}, false},
		{unix.MOUNT_ATTR_STRICTATIME, []string{"strictatime"}, false},
	} {
		mnt, err := clone(unix.AT_FDCWD, "/", false)
		if err != nil {
			t.Fatal(err)
		}
		defer mnt.Close()
		if err := setAttributes(mnt, tt.source|unix.MOUNT_ATTR_NOSYMFOLLOW, atimeFlags, false); err != nil {
			t.Fatal(err)
		}
		m, err := parseMount(&specs.Mount{Destination: "/mnt", Source: "/", Type: "bind", Options: tt.options}, "/")
		if err != nil {
			t.Fatal(err)
		}
		if err := setUnlocked(m, mnt); errors.Is(err, os.ErrPermission) != tt.refused {
			t.Errorf("%v on a source with %#x: %v", tt.options, tt.source, err)
		}
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(mnt.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if now := attributesOf(uint64(st.Flags)); now&unix.MOUNT_ATTR_NOSYMFOLLOW != 0 && !tt.refused {
			t.Errorf("%v: nosymfollow, which is never locked, is left", tt.options)
		}
	}
}
