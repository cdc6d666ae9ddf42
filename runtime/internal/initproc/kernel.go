package initproc

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/cyphar/filepath-securejoin/pathrs-lite/procfs"
	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"
)

// joinKeyring leaves the caller's session keyring for the container's own, which exec finds by its name. The rights
// added let processes of another user in the container search it.
func (p *process) joinKeyring() error {
	if p.NoNewKeyring {
		return nil
	}
	if p.Process.SelinuxLabel != "" {
		if err := selinux.SetKeyLabel(p.Process.SelinuxLabel); err != nil {
			return fmt.Errorf("set key label: %w", err)
		}
	}
	id, err := unix.KeyctlJoinSessionKeyring("_ses." + p.ID)
	if errors.Is(err, unix.ENOSYS) {
		p.log.Warn("this kernel has no keyrings")
		return nil
	}
	if err != nil {
		return fmt.Errorf("join session keyring: %w", err)
	}
	if p.Kind != "init" {
		return nil
	}
	const searchByUser, searchByOther = 0x80000, 0x8
	add := uint32(searchByUser)
	if p.UserNS {
		add = searchByOther
	}
	description, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
	if err != nil {
		return fmt.Errorf("describe session keyring: %w", err)
	}
	var perm uint32 // "keyring;UID;GID;PERM;NAME"
	if fields := strings.Split(description, ";"); len(fields) < 5 {
		return fmt.Errorf("describe session keyring: bad answer %q", description)
	} else if _, err := fmt.Sscanf(fields[3], "%x", &perm); err != nil {
		return fmt.Errorf("describe session keyring: bad answer %q", description)
	}
	if err := unix.KeyctlSetperm(id, perm|add); err != nil {
		return fmt.Errorf("set rights of session keyring: %w", err)
	}
	return nil
}

// raiseLoopback brings lo of a new network namespace up: programs rely on 127.0.0.1.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return os.NewSyscallError("ioctl(SIOCGIFFLAGS)", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("ioctl(SIOCSIFFLAGS)", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request))
}

// applyProfile asks AppArmor to confine the program from execve(2) on.
func applyProfile(profile string) error {
	if profile == "" {
		return nil
	}
	proc, err := procfs.OpenProcRoot()
	if err != nil {
		return fmt.Errorf("open procfs: %w", err)
	}
	defer proc.Close()
	// Since Linux 5.8 AppArmor has a directory of its own; the plain name may be another security module's.
	handle, done, err := proc.OpenThreadSelf("attr/apparmor/exec")
	if errors.Is(err, os.ErrNotExist) {
		handle, done, err = proc.OpenThreadSelf("attr/exec")
	}
	if err != nil {
		return fmt.Errorf("apply apparmor profile %q: %w", profile, err)
	}
	defer done()
	defer handle.Close()
	f, err := pathrs.Reopen(handle, unix.O_WRONLY|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("apply apparmor profile %q: %w", profile, err)
	}
	_, err = f.WriteString("exec " + profile)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("apply apparmor profile %q: %w", profile, err)
	}
	return nil
}
