package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/livemigrate/migrate/runtime/internal/bootstrap"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (p *Plan) checkNamespaces() error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, n := range p.Spec.Linux.Namespaces {
		i := slices.IndexFunc(namespaceKeys(), func(k namespaceKey) bool { return k.kind == n.Type })
		switch {
		case i < 0:
			return fmt.Errorf("namespace %q does not exist", n.Type)
		case seen[n.Type]:
			return fmt.Errorf("malformed spec file: duplicated ns %q", n.Type)
		}
		seen[n.Type] = true
		if _, err := os.Stat("/proc/self/ns/" + namespaceKeys()[i].file); err != nil {
			return fmt.Errorf("%s namespaces aren't enabled in the kernel", n.Type)
		}
		if n.Path == "" {
			continue
		}
		if !filepath.IsAbs(n.Path) || strings.ContainsAny(n.Path, ",\x00") {
			return fmt.Errorf("invalid namespace path %s", n.Path)
		}
		if err := checkNamespacePath(n.Path, namespaceKeys()[i].file); err != nil {
			return fmt.Errorf("namespace path: %w", err)
		}
	}
	linux := p.Spec.Linux
	if !seen[specs.MountNamespace] && len(linux.MaskedPaths)+len(linux.ReadonlyPaths) > 0 {
		return errors.New("unable to restrict sys entries without a private MNT namespace")
	}
	return nil
}

// checkNamespacePath wants a namespace of the kind: setns(2) refuses any other, but by then there is a process.
func checkNamespacePath(path, file string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	// What is no namespace is not opened: a fifo would keep us waiting, and a device may do anything.
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("%s is not a namespace", path)
	}
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return &os.PathError{Op: "look at namespace", Path: path, Err: err}
	}
	if uint32(kind) != bootstrap.CloneFlag(file) {
		return fmt.Errorf("%s is not a namespace of type %s", path, file)
	}
	return nil
}

func (p *Plan) checkUserNamespace() error {
	uids, gids := p.Spec.Linux.UIDMappings, p.Spec.Linux.GIDMappings
	if err := cmp.Or(checkMap("uid", uids), checkMap("gid", gids)); err != nil {
		return err
	}
	path, ok := p.namespace(specs.UserNamespace)
	switch {
	case !ok && len(uids)+len(gids) > 0:
		return errors.New("user namespace mappings specified, but user namespace isn't enabled in the config")
	case ok && path == "" && (len(uids) == 0 || len(gids) == 0):
		return errors.New("user namespaces enabled, but no namespace path to join nor mappings to apply specified")
	case ok && path != "" && len(uids)+len(gids) > 0:
		// containerd and CRI-O give both. That is wrong only when they differ.
		haveUIDs, haveGIDs, err := namespaceMaps(path)
		if err != nil {
			return err
		}
		if !slices.Equal(uids, haveUIDs) || !slices.Equal(gids, haveGIDs) {
			return errors.New("user namespaces enabled, but both namespace path and non-matching mapping specified -- you may only provide one")
		}
	}
	return nil
}

// maxOffset is the kernel's KTIME_SEC_MAX: what 64 bits of nanoseconds hold.
const maxOffset = 9223372036

func (p *Plan) checkTimeNamespace() error {
	offsets := p.Spec.Linux.TimeOffsets
	path, ok := p.namespace(specs.TimeNamespace)
	switch {
	case !ok && len(offsets) > 0:
		return errors.New("time namespace offsets specified, but time namespace isn't enabled in the config")
	case path != "" && len(offsets) > 0:
		return errors.New("time namespace enabled, but both namespace path and time offsets specified -- you may only provide one")
	}
	for clock, offset := range offsets {
		switch {
		case clock != "monotonic" && clock != "boottime":
			return fmt.Errorf("time offset of unknown clock %q (known: monotonic, boottime)", clock)
		case offset.Secs < -maxOffset || offset.Secs > maxOffset || offset.Nanosecs >= 1e9:
			return fmt.Errorf("time offset of clock %s is out of range: %d seconds, %d nanoseconds", clock, offset.Secs, offset.Nanosecs)
		}
	}
	return nil
}

// checkClocks refuses offsets that would set a clock before 0 or so far ahead that it could overflow, as the kernel does
// with no more than ERANGE. Create's alone: a restored container's clocks go on from where they were, whatever ours say.
func (p *Plan) checkClocks() error {
	const most = maxOffset / 2
	for _, clock := range slices.Sorted(maps.Keys(p.Spec.Linux.TimeOffsets)) {
		now, err := hostClock(clock)
		if err != nil {
			return err
		}
		offset := p.Spec.Linux.TimeOffsets[clock]
		then := now + time.Duration(offset.Nanosecs)
		if secs := int64(then/time.Second) + offset.Secs; secs < 0 || secs > most {
			return fmt.Errorf("time offset of clock %s is out of range: %d seconds from its %d are not in 0 to %d", clock, offset.Secs, int64(now/time.Second), int64(most))
		}
	}
	return nil
}

// hostClock is a clock of the initial time namespace, which offsets are relative to also where we are in another.
func hostClock(name string) (time.Duration, error) {
	id := int32(unix.CLOCK_MONOTONIC)
	if name == "boottime" {
		id = unix.CLOCK_BOOTTIME
	}
	var now unix.Timespec
	if err := unix.ClockGettime(id, &now); err != nil {
		return 0, fmt.Errorf("read clock %s: %w", name, err)
	}
	own, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return 0, fmt.Errorf("look up own time offsets: %w", err)
	}
	for line := range strings.Lines(string(own)) {
		var secs, nanosecs int64
		if n, _ := fmt.Sscanf(line, name+" %d %d", &secs, &nanosecs); n == 2 {
			return time.Duration(now.Nano()) - time.Duration(secs)*time.Second - time.Duration(nanosecs), nil
		}
	}
	return 0, fmt.Errorf("look up own time offsets: the kernel knows no clock %s", name)
}
