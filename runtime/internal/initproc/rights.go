package initproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/cyphar/filepath-securejoin/pathrs-lite/procfs"
	"github.com/moby/sys/user"
	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/runtime/internal/attribute"
	"github.com/livemigrate/migrate/runtime/internal/capability"
	"github.com/livemigrate/migrate/runtime/internal/handshake"
	"github.com/livemigrate/migrate/runtime/internal/initmem"
)

// setAttributes sets what takes rights to set and does not take them away.
func (p *process) setAttributes() error {
	if p.Process.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl(PR_SET_NO_NEW_PRIVS)", err)
		}
	}
	if p.Process.User.Umask != nil {
		unix.Umask(int(*p.Process.User.Umask))
	}
	if err := attribute.SetScheduler(p.Process.Scheduler); err != nil {
		// sched_setattr(2): SCHED_DEADLINE needs every CPU of its root domain.
		if errors.Is(err, unix.EPERM) && p.hasCpuset() {
			return fmt.Errorf("process scheduler can't be used together with AllowedCPUs: %w", err)
		}
		return err
	}
	if err := attribute.SetIOPriority(p.Process.IOPriority); err != nil {
		return err
	}
	if err := attribute.SetPersonality(p.Spec.Linux.Personality); err != nil {
		return err
	}
	return attribute.SetMemoryPolicy(p.Spec.Linux.MemoryPolicy)
}

func (p *process) hasCpuset() bool {
	r := p.Spec.Linux.Resources
	return r != nil && r.CPU != nil && r.CPU.Cpus != ""
}

// dropRights makes the thread what the program is to be, and returns the program's path. With no-new-privileges
// seccomp comes last, so that a profile need not allow what we do; without, loading it takes CAP_SYS_ADMIN, so first.
// No filter at all counts as last too: releaseMemory goes with it.
func (p *process) dropRights() (string, error) {
	if err := p.sealDescriptors(); err != nil {
		return "", err
	}
	p.keepGroups = p.Rootless || setgroupsDenied()
	if p.Process.SelinuxLabel != "" {
		if err := selinux.SetExecLabel(p.Process.SelinuxLabel); err != nil {
			return "", fmt.Errorf("set process label: %w", err)
		}
	}
	first := !p.Process.NoNewPrivileges && !p.filter.Empty()
	if first {
		if err := p.loadSeccomp(); err != nil {
			return "", err
		}
	}
	if err := p.changeUser(); err != nil {
		return "", err
	}
	if os.Getppid() != p.parent {
		return "", errors.New("the starter of the container is gone")
	}
	// Before start is waited for: a missing program is an error of create.
	path, err := exec.LookPath(p.Process.Args[0])
	if err != nil {
		return "", err
	}
	if !first {
		if err := p.loadSeccomp(); err != nil {
			return "", err
		}
	}
	return path, nil
}

func (p *process) loadSeccomp() error {
	p.log.Debug(fmt.Sprintf("seccomp filter flags: %d", p.filter.Flags()))
	p.releaseMemory()
	listener, err := p.filter.Load()
	if err != nil {
		return fmt.Errorf("load seccomp filter: %w", err)
	}
	if listener < 0 {
		return nil
	}
	defer unix.Close(listener)
	// Only the number goes over: the starter takes the descriptor itself (pidfd_getfd), for the filter may already hold
	// up the system call that would send it.
	if _, err := p.conn.Ask(&handshake.Message{Type: handshake.Seccomp, FD: listener}, handshake.Continue); err != nil {
		return fmt.Errorf("hand over seccomp listener: %w", err)
	}
	return nil
}

// releaseMemory is for init alone, which is going to wait: any other process executes its program now. It is called at the
// last moment when no filter can forbid it, for what is needed after it comes back.
func (p *process) releaseMemory() {
	if p.Kind != handshake.Init {
		return
	}
	if err := initmem.Release(); err != nil {
		p.log.Debug("init keeps its memory", "error", err)
	}
}

// changeUser gives up root for the program's user, its groups and capabilities, and enters its working directory.
func (p *process) changeUser() error {
	inside, err := p.enterCwd()
	if err != nil {
		return err
	}
	if p.env, err = prepareEnv(p.Process.Env, int(p.Process.User.UID)); err != nil {
		return err
	}
	caps, err := capability.New(p.Process.Capabilities, p.log)
	if err != nil {
		return err
	}
	if err := caps.ApplyBounding(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_KEEPCAPS)", err)
	}
	if err := p.setUser(); err != nil {
		return err
	}
	if !inside {
		if err := unix.Chdir(p.Process.Cwd); err != nil {
			return fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", p.Process.Cwd, err)
		}
	}
	if err := verifyCwd(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_KEEPCAPS)", err)
	}
	return caps.Apply()
}

// enterCwd tries the working directory with our own rights, which may be the only ones that reach it. Where only the
// program's user may enter, it is tried again as that user.
func (p *process) enterCwd() (bool, error) {
	if p.Process.Cwd == "" {
		return true, nil
	}
	err := unix.Chdir(p.Process.Cwd)
	if errors.Is(err, os.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("chdir to cwd (%q) set in config.json failed: %w", p.Process.Cwd, err)
	}
	return true, nil
}

// verifyCwd makes sure that the working directory is inside: a descriptor of the host that leaked to us could have been
// named as "/proc/self/fd/7" (CVE-2024-21626). getcwd(2) says "(unreachable)" then, which Go turns into ENOENT.
func verifyCwd() error {
	wd, err := unix.Getwd()
	if errors.Is(err, unix.ENOENT) || err == nil && !filepath.IsAbs(wd) {
		return errors.New("current working directory is outside of container mount namespace root -- possible container breakout detected")
	}
	if err != nil {
		return fmt.Errorf("verify working directory: %w", err)
	}
	return nil
}

func (p *process) setUser() error {
	uid, gid := int(p.Process.User.UID), int(p.Process.User.GID)
	if err := ownStdio(uid); err != nil {
		return err
	}
	if !p.keepGroups {
		groups := make([]int, 0, len(p.Process.User.AdditionalGids))
		for _, gid := range p.Process.User.AdditionalGids {
			groups = append(groups, int(gid))
		}
		if err := unix.Setgroups(groups); err != nil {
			return os.NewSyscallError("setgroups", err)
		}
	}
	if err := unix.Setresgid(gid, gid, gid); err == unix.EINVAL {
		return fmt.Errorf("cannot setgid to unmapped gid %d in user namespace", gid)
	} else if err != nil {
		return os.NewSyscallError("setgid", err)
	}
	if err := unix.Setresuid(uid, uid, uid); err == unix.EINVAL {
		return fmt.Errorf("cannot setuid to unmapped uid %d in user namespace", uid)
	} else if err != nil {
		return os.NewSyscallError("setuid", err)
	}
	return nil
}

// setgroupsDenied asks the real procfs: the image's /proc must not decide which groups its program has. Where there is
// none to ask, setgroups(2) itself will tell.
func setgroupsDenied() bool {
	proc, err := procfs.OpenProcRoot()
	if err != nil {
		return false
	}
	defer proc.Close()
	handle, err := proc.OpenSelf("setgroups")
	if err != nil {
		return false
	}
	defer handle.Close()
	f, err := pathrs.Reopen(handle, unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	return err == nil && strings.TrimSpace(string(text)) == "deny"
}

// ownStdio gives 0, 1 and 2 to the program's user, who may want to open /dev/stdout again. /dev/null stays root's, and
// what a user namespace or a read-only mount does not let us change stays as it is.
func ownStdio(uid int) error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("stat descriptor %d: %w", fd, err)
		}
		isNull := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
		if int(st.Uid) == uid || isNull {
			continue
		}
		if err := unix.Fchown(fd, uid, -1); err != nil && err != unix.EPERM && err != unix.EROFS && err != unix.EINVAL {
			return fmt.Errorf("give descriptor %d to user %d: %w", fd, uid, err)
		}
	}
	return nil
}

// prepareEnv checks the environment, keeps the last of double names, sets our own PATH for the look-up of the program,
// and adds HOME from the container's passwd when the spec has none.
func prepareEnv(env []string, uid int) ([]string, error) {
	out := make([]string, 0, len(env)+1)
	seen, home := map[string]bool{}, false
	for _, entry := range slices.Backward(env) {
		name, value, ok := strings.Cut(entry, "=")
		switch {
		case !ok:
			return nil, errors.New("invalid environment variable: missing '='")
		case name == "":
			return nil, errors.New("invalid environment variable: name cannot be empty")
		case strings.ContainsRune(entry, 0):
			return nil, fmt.Errorf("invalid environment variable %q: contains nul byte (\\x00)", name)
		case seen[name]:
			continue
		}
		seen[name] = true
		if name == "HOME" && value == "" {
			continue
		}
		home = home || name == "HOME"
		if name == "PATH" {
			if err := os.Setenv(name, value); err != nil {
				return nil, err
			}
		}
		out = append(out, entry)
	}
	slices.Reverse(out)
	if !home {
		dir := "/"
		if u, err := user.LookupUid(uid); err == nil {
			dir = u.Home
		}
		out = append(out, "HOME="+dir)
	}
	return out, nil
}
