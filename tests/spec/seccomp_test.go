package spec

import (
	"encoding/json"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestSeccompDecidesAsTheProfileSays(t *testing.T) {
	deny := func(action specs.LinuxSeccompAction, errno *uint, args ...specs.LinuxSeccompArg) func(*box) {
		return func(b *box) {
			b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"getpriority"}, Action: action, ErrnoRet: errno, Args: args},
			}}
		}
	}
	getpriority := map[string]string{"amd64": "140", "arm64": "141"}[runtime.GOARCH]
	probe := "probe call " + getpriority + "; echo $?"
	flags := func(list ...specs.LinuxSeccompFlag) func(*box) {
		return func(b *box) {
			deny(specs.ActErrno, nil)(b)
			b.spec.Linux.Seccomp.Flags = list
		}
	}
	eperm := "operation not permitted\n0\n"
	inside(t, []row{
		{"errno of its own accord", deny(specs.ActErrno, nil), probe, eperm},
		{"another errno", deny(specs.ActErrno, pointer(uint(syscall.ENOTTY))), probe, "inappropriate ioctl for device\n0\n"},
		{"log and allow", deny(specs.ActLog, nil), probe, "errno 0\n0\n"},
		{"kill the process", deny(specs.ActKillProcess, nil), probe, "159\n"},
		{"trap", deny(specs.ActTrap, nil), probe + " 2>/dev/null", "2\n"},
		{"argument that matches", deny(specs.ActErrno, nil, specs.LinuxSeccompArg{Index: 0, Value: 0, Op: specs.OpEqualTo}), probe, eperm},
		{"argument that does not", deny(specs.ActErrno, nil, specs.LinuxSeccompArg{Index: 1, Value: 7, Op: specs.OpGreaterEqual}), probe, "errno 0\n0\n"},
		{"masked argument", deny(specs.ActErrno, nil, specs.LinuxSeccompArg{Index: 0, Value: 1, ValueTwo: 0, Op: specs.OpMaskedEqual}), probe, eperm},
		{"flag LOG", flags(specs.LinuxSeccompFlagLog), probe, eperm},
		{"flag SPEC_ALLOW", flags(specs.LinuxSeccompFlagSpecAllow), "grep -c 'Speculation_Store_Bypass:.*thread force' /proc/self/status; " + probe, "0\n" + eperm},
		{"flag TSYNC", flags("SECCOMP_FILTER_FLAG_TSYNC"), probe, eperm},
		{"all flags", flags(specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, "SECCOMP_FILTER_FLAG_TSYNC"), probe, eperm},
		{"without no-new-privileges", func(b *box) {
			b.spec.Process.NoNewPrivileges = false
			deny(specs.ActErrno, nil)(b)
		}, "grep Seccomp: /proc/self/status | awk '{print $2}'; " + probe, "2\n" + eperm},
	})
	refused(t, []row{
		{"action", deny("SCMP_ACT_MAYBE", nil), "", "SCMP_ACT_MAYBE"},
		{"operator", deny(specs.ActErrno, nil, specs.LinuxSeccompArg{Op: "SCMP_CMP_XX"}), "", "SCMP_CMP_XX"},
		{"flag", flags("SECCOMP_FILTER_FLAG_X"), "", "SECCOMP_FILTER_FLAG_X"},
		{"architecture", func(b *box) {
			deny(specs.ActErrno, nil)(b)
			b.spec.Linux.Seccomp.Architectures = []specs.Arch{"SCMP_ARCH_PDP11"}
		}, "", "SCMP_ARCH_PDP11"},
		{
			"notify by default", func(b *box) {
				b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActNotify, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}}
			},
			"", "SCMP_ACT_NOTIFY cannot be used as default action",
		},
		{"notify nobody", deny(specs.ActNotify, nil), "", "listenerPath"},
	})
}

// known are the calls that a shell and the probe need; the profile denies all others that are not newer than these.
func known() []string {
	return strings.Fields(`access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3 epoll_create1 epoll_ctl
		epoll_pwait eventfd2 execve exit exit_group faccessat faccessat2 fchdir fchown fcntl fstat fstatfs futex getcwd getdents64
		getegid geteuid getgid getgroups getpid getppid getrandom getrlimit gettid getuid ioctl lseek lstat madvise mmap mprotect
		munmap nanosleep newfstatat open openat pipe pipe2 poll prctl pread64 prlimit64 read readlink readlinkat restart_syscall
		rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield set_robust_list set_tid_address setgid setgroups
		setpgid setresgid setresuid setsid setuid sigaltstack stat statfs statx tgkill time uname vfork wait4 waitid write writev clock_gettime`)
}

func TestCallsNewerThanTheProfileAreNotThere(t *testing.T) {
	// C libraries fall back to older calls on ENOSYS only. close_range (436) or faccessat2 (439) is the highest known one.
	strict := func(b *box) {
		b.spec.Process.NoNewPrivileges = true
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64},
			Syscalls: []specs.LinuxSyscall{{Names: known(), Action: specs.ActAllow}},
		}
	}
	inside(t, []row{
		{"newer", strict, "probe call 440; probe call 999", "function not implemented\nfunction not implemented\n"},
		{"older and denied", strict, "probe call 438", "operation not permitted\n"}, // pidfd_getfd
	})
}

// The layout of seccomp_unotify(2).
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	data  struct {
		number  int32
		arch    uint32
		pointer uint64
		args    [6]uint64
	}
}

type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

func TestSeccompAgentAnswersForTheKernel(t *testing.T) {
	const killable = specs.LinuxSeccompFlagWaitKillableRecv
	for _, flags := range [][]specs.LinuxSeccompFlag{nil, {killable}} {
		b := newBox(t, "mkdir /made; echo $?")
		b.spec.Annotations = map[string]string{"owner": "me"}
		socket := filepath.Join(t.TempDir(), "agent")
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		must(t, err)
		defer listener.Close()
		b.spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: socket, ListenerMetadata: "for the agent", Flags: flags,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
		if len(flags) > 0 && !supports(b, killable) {
			if got := b.run(); got.code == 0 || !strings.Contains(got.stderr, "requires libseccomp >= 2.6.0") {
				t.Errorf("a flag that libseccomp does not know: %d: %s", got.code, got.stderr)
			}
			continue
		}
		told := make(chan string, 1)
		go func() {
			file, state := receiveFileAndText(listener)
			told <- state
			if file == nil {
				return
			}
			defer file.Close()
			const receive, send = 0xc0502100, 0xc0182101 // SECCOMP_IOCTL_NOTIF_RECV, _SEND
			var n notification
			if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), receive, uintptr(unsafe.Pointer(&n))); errno == 0 {
				answer := response{id: n.id, errno: -int32(syscall.EDQUOT)}
				_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), send, uintptr(unsafe.Pointer(&answer)))
			}
		}()
		got := b.run()
		if !strings.Contains(got.stderr, "Disc quota exceeded") && !strings.Contains(got.stderr, "Disk quota exceeded") || got.stdout != "1\n" {
			t.Errorf("exit code %d, the container printed %q and %q", got.code, got.stdout, got.stderr)
		}
		select {
		case text := <-told:
			var state specs.ContainerProcessState
			must(t, json.Unmarshal([]byte(text), &state))
			if state.Metadata != "for the agent" || state.State.ID != b.id || state.Pid == 0 || state.State.Annotations["owner"] != "me" ||
				state.State.Bundle != b.bundle || len(state.Fds) != 1 || state.Fds[0] != specs.SeccompFdName || state.Version == "" {
				t.Errorf("the agent was told %s", text)
			}
		case <-time.After(10 * time.Second):
			t.Error("the agent was told nothing")
		}
	}
}

// supports tells whether the features document lists the flag as one that works here.
func supports(b *box, flag specs.LinuxSeccompFlag) bool {
	var f struct {
		Linux struct {
			Seccomp struct {
				SupportedFlags []specs.LinuxSeccompFlag `json:"supportedFlags"`
			} `json:"seccomp"`
		} `json:"linux"`
	}
	must(b.t, json.Unmarshal([]byte(b.ok("features")), &f))
	for _, known := range f.Linux.Seccomp.SupportedFlags {
		if known == flag {
			return true
		}
	}
	return false
}
