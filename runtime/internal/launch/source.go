package launch

import (
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/runtime/internal/rootfs"
)

// giveSource gives an init the source of a bind mount: opened for one that may not, or, when it brought an open one,
// mapped.
func (s *starter) giveSource(index int, opened *os.File) (*os.File, error) {
	if opened != nil {
		defer opened.Close()
	}
	if index < 0 || index >= len(s.config.Spec.Mounts) {
		return nil, fmt.Errorf("init asks for mount %d of %d", index, len(s.config.Spec.Mounts))
	}
	m := &s.config.Spec.Mounts[index]
	userns, err := s.mappingNamespace(m)
	if err != nil {
		return nil, fmt.Errorf("map ids of mount %s: %w", m.Destination, err)
	}
	defer userns.Close()
	if opened != nil {
		return nil, rootfs.MapSource(m, s.config.Bundle, opened, userns)
	}
	return rootfs.OpenSource(m, s.config.Bundle, s.config.Rootfs, userns)
}

// mappingNamespace is the user namespace an id-mapped mount maps by: one with the mount's own maps, else the
// container's.
func (s *starter) mappingNamespace(m *specs.Mount) (*os.File, error) {
	if len(m.UIDMappings)+len(m.GIDMappings) == 0 {
		return os.Open(fmt.Sprintf("/proc/%d/ns/user", s.init.Pid))
	}
	return mappedNamespace(m.UIDMappings, m.GIDMappings)
}

// mappedNamespace makes a user namespace that only serves as a map. A process has to be born in it; it is stopped
// before its first instruction and killed as soon as its namespace is open, which then lives on by the descriptor.
func mappedNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	// Only the thread that started a traced process may handle it.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", []string{"migrate"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: convert(uids), GidMappings: convert(gids), Ptrace: true,
	}})
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", p.Pid))
	_ = p.Kill()
	_, waitErr := p.Wait()
	return ns, errors.Join(err, waitErr)
}

func convert(maps []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	out := make([]syscall.SysProcIDMap, 0, len(maps))
	for _, m := range maps {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
	}
	return out
}
