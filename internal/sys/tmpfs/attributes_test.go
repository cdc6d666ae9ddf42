package tmpfs_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/tmpfs"
	"github.com/livemigrate/migrate/internal/testutil"
)

// accessList is system.posix_acl_*: user::rw- user:1234:rw- group::--- mask::rw- other::---
func accessList() []byte {
	list := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, bits uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 6, 1234}, {4, 0, ^uint32(0)}, {16, 6, ^uint32(0)}, {32, 0, ^uint32(0)}} {
		list = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(list, e.tag), e.bits)
		list = binary.LittleEndian.AppendUint32(list, e.id)
	}
	return list
}

// Without its access list a file's group has the mask's rights, which are others'.
func TestAccessListsAndCapabilitiesArrive(t *testing.T) {
	testutil.Root(t)
	from, to := mount(t, ""), mount(t, "")
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // cap_net_bind_service+ep
	attributes := []struct {
		path, name string
		value      []byte
	}{
		{"file", "system.posix_acl_access", accessList()},
		{"program", "security.capability", capability},
		{"program", "trusted.note", []byte("text\x00more")},
		{"dir", "system.posix_acl_access", accessList()},
		{"dir", "system.posix_acl_default", accessList()},
		{".", "system.posix_acl_default", accessList()},
	}
	run(t, `cd "$1"; touch file program plain; mkdir dir; echo x >dir/inside; chmod 640 dir/inside; chown 12:34 program file`, from)
	for _, a := range attributes {
		if err := unix.Lsetxattr(filepath.Join(from, a.path), a.name, a.value, 0); err != nil {
			t.Fatal(err)
		}
	}
	const modes = `cd "$1"; find . -printf '%p %m %U %G %T@\n' | sort`
	want := run(t, modes, from)
	packed := pack(t, from)
	if _, err := tmpfs.Unpack(to, bufio.NewReader(packed), tmpfs.Limit); err != nil {
		t.Fatal(err)
	}
	if got := run(t, modes, to); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, a := range attributes {
		got := make([]byte, 256)
		n, err := unix.Lgetxattr(filepath.Join(to, a.path), a.name, got)
		if err != nil || !bytes.Equal(got[:max(n, 0)], a.value) {
			t.Errorf("%s of %s: %q, %v", a.name, a.path, got[:max(n, 0)], err)
		}
	}
	for _, path := range []string{"plain", "dir/inside"} { // made before their directories had the default
		if _, err := unix.Lgetxattr(filepath.Join(to, path), "system.posix_acl_access", nil); !errors.Is(err, unix.ENODATA) {
			t.Errorf("%s has a list: %v", path, err)
		}
	}
	bad := line(".", `,"mode":16877`) + line("a", `,"mode":33188,"attributes":{"security.selinux":"eA=="}`) + `{"last":true}` + "\n"
	if _, err := tmpfs.Unpack(mount(t, ""), bufio.NewReader(bytes.NewReader([]byte(bad))), tmpfs.Limit); !errors.Is(err, tmpfs.ErrMalformed) {
		t.Errorf("a label of the peer: %v", err)
	}
}
