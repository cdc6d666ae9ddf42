package runtime

import (
	"slices"
	"strings"

	"github.com/livemigrate/migrate/runtime/internal/hooks"
	"github.com/livemigrate/migrate/runtime/internal/rootfs"
	"github.com/livemigrate/migrate/runtime/internal/seccomp"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// Features is the document by which engines learn what this runtime can do (features.md of the OCI specification).
// Version and commit are the program's; commit may be empty.
func Features(version, commit string) *features.Features {
	yes := true
	options := rootfs.KnownOptions()
	slices.Sort(options)
	f := &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         hooks.Names(),
		MountOptions:  slices.Compact(options),
		Annotations: map[string]string{
			"io.github.livemigrate.migrate.version": version,
			// Engines look for these of runc's, whoever the runtime is.
			"org.opencontainers.runc.checkpoint.enabled": "true",
			"io.github.seccomp.libseccomp.version":       seccomp.Version(),
		},
		Linux: &features.Linux{
			Capabilities: capabilities(),
			Cgroup:       &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
			Seccomp: &features.Seccomp{
				Enabled:        &yes,
				Actions:        seccomp.Actions(),
				Operators:      seccomp.Operators(),
				Archs:          seccomp.Archs(),
				KnownFlags:     seccomp.Flags(),
				SupportedFlags: seccomp.SupportedFlags(),
			},
			Apparmor:        &features.Apparmor{Enabled: &yes},
			Selinux:         &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy:    &features.MemoryPolicy{Modes: memoryPolicyModes(), Flags: memoryPolicyFlags()},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices:      &features.NetDevices{Enabled: &yes},
		},
		// An engine that lets its users set annotations must not let them set these.
		PotentiallyUnsafeConfigAnnotations: []string{"bundle", "org.systemd.property.", "org.criu.config"},
	}
	if commit != "" {
		f.Annotations["io.github.livemigrate.migrate.commit"] = commit
	}
	for _, n := range namespaceKeys() {
		f.Linux.Namespaces = append(f.Linux.Namespaces, string(n.kind))
	}
	slices.Sort(f.Linux.Namespaces)
	return f
}

func capabilities() []string {
	var names []string
	for _, c := range capability.ListKnown() {
		names = append(names, "CAP_"+strings.ToUpper(c.String()))
	}
	return names
}

// LibseccompVersion is the version of the library that filters are built with.
func LibseccompVersion() string { return seccomp.Version() }
