package seccomp

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func profile(rules ...specs.LinuxSyscall) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: rules}
}

func allow(names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: specs.ActAllow}
}

func TestProfilesThatCannotBeLoadedAreNamed(t *testing.T) {
	tests := []struct {
		name string
		spec *specs.LinuxSeccomp
		want string // "": fine
	}{
		{"none", nil, ""},
		{"empty", &specs.LinuxSeccomp{}, ""},
		{"plain", profile(allow("read", "write")), ""},
		{"unknown system call is no error", profile(allow("read", "no_such_call")), ""},
		{"several conditions on one argument", profile(specs.LinuxSyscall{
			Names: []string{"personality"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: 0, Op: specs.OpEqualTo}, {Index: 0, Value: 8, Op: specs.OpEqualTo}},
		}), ""},
		{"action", &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_PRAY"}, "SCMP_ACT_PRAY is not a valid action"},
		{"operator", profile(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "SCMP_CMP_MAYBE"}}}), "not a valid operator"},
		{"architecture", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_PDP11"}}, "not a valid arch"},
		{"flag", &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_X"}}, "SECCOMP_FILTER_FLAG_X"},
		{"notify by default", &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, "cannot be used as default action"},
		{"notify without a listener", profile(specs.LinuxSyscall{Names: []string{"mkdir"}, Action: specs.ActNotify}), "listenerPath is not set"},
		{"notify on write", &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: "/run/agent",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}},
		}, "cannot be used for the write syscall"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(tt.spec)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Check: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPrologueStandsBeforeStrictProfilesOnly(t *testing.T) {
	if strict := prologue(profile(allow("read", "openat2"))); len(strict) == 0 {
		t.Error("a strict profile got no prologue")
	}
	if lax := prologue(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{allow("read")}}); lax != nil {
		t.Errorf("a profile that allows by default got a prologue: %+v", lax)
	}
}

func TestExportedProgramIsWhole(t *testing.T) {
	filter, err := build(profile(allow("read", "write", "exit_group")), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer filter.Release()
	program, err := export(filter)
	if err != nil {
		t.Fatal(err)
	}
	last := program[len(program)-1]
	if len(program) < 6 || last.Code != unix.BPF_RET|unix.BPF_K {
		t.Errorf("program of %d instructions ends in %+v", len(program), last)
	}
}

// What is written to the state, and sent to init, goes through JSON, which leaves an empty list out.
func TestNoFlagsAndNoListOfFlagsStayTwoThings(t *testing.T) {
	for _, tt := range []struct {
		flags []specs.LinuxSeccompFlag
		want  uintptr
	}{
		{nil, flagSpecAllow},
		{[]specs.LinuxSeccompFlag{}, 0},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, flagLog},
		{[]specs.LinuxSeccompFlag{flagSync}, 0},
	} {
		spec := profile(allow("read"))
		spec.Flags = tt.flags
		noFlags := NoFlags(spec)
		data, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		read := &specs.LinuxSeccomp{}
		if err := json.Unmarshal(data, read); err != nil {
			t.Fatal(err)
		}
		filter, err := Compile(read, noFlags, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("flags %#v: %v", tt.flags, err)
		}
		if filter.flags != tt.want {
			t.Errorf("flags %#v became %#x, want %#x", tt.flags, filter.flags, tt.want)
		}
	}
	if NoFlags(nil) {
		t.Error("no profile asks for no flags")
	}
}
