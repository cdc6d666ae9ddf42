package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/sys/tmpfs"
)

// CRIU saves a tmpfs by tar and gzip, five milliseconds and more for an empty one, and as much at the restore. Where a peer of ours
// restores, those are external mounts to CRIU, and what is in them goes in a file of ours. There our program writes it, to whom it
// is charged, and not the container: mounts with more than a little in them (tmpfs.Limit) stay with CRIU.

// errMounts: the container has mounted something between the request, which names its mounts, and the freeze.
var errMounts = errors.New("the container's mounts have just changed")

// findTmpfs lists the mounts that CRIU need not save. Of those that are shared, covered or bound elsewhere only CRIU knows how
// to put them together again.
func (d *dump) findTmpfs() error {
	d.mounts, d.tmpfs = nil, nil
	plan := d.container.Plan()
	if !d.options.NoManifest || d.options.byItself || !plan.Private(specs.MountNamespace) || plan.Private(specs.UserNamespace) {
		return nil
	}
	pids, err := d.container.Processes()
	if err != nil {
		return err
	}
	if err := d.inOneView(pids); err != nil {
		d.options.log().Debug("criu saves tmpfs mounts", "container", d.container.ID(), "cause", err)
		return nil
	}
	if d.mounts, err = d.readMounts(); err != nil {
		return err
	}
	all, err := mountinfo.GetMountsFromReader(bytes.NewReader(d.mounts), nil)
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	own, err := criu.OwnTmpfs(plan.Rootfs, plan.Spec)
	if err != nil {
		return err
	}
	room := int64(tmpfs.Limit)
	for _, m := range all {
		if m.FSType != "tmpfs" || m.Root != "/" || m.Optional != "" || !slices.Contains(own, m.Mountpoint) {
			continue
		}
		options, err := tmpfs.CheckOptions(m.VFSOptions)
		if err != nil {
			continue
		}
		shared := slices.ContainsFunc(all, func(other *mountinfo.Info) bool {
			same := other.Major == m.Major && other.Minor == m.Minor
			// A masked file may show the null device of /dev, and masked directories one empty tmpfs: each is external.
			mask := slices.Contains(plan.Spec.Linux.MaskedPaths, other.Mountpoint)
			return other != m && (same && !mask || other.Mountpoint == m.Mountpoint)
		})
		if shared {
			continue
		}
		device, size, err := tmpfs.Look(d.container.InitPid(), m.Mountpoint)
		if err != nil || device != tmpfs.Device(m.Major, m.Minor) || size > room {
			d.options.log().Debug("criu saves a tmpfs", "container", d.container.ID(), "path", m.Mountpoint, "bytes", size, "error", err)
			continue
		}
		room -= size
		d.tmpfs = append(d.tmpfs, tmpfs.Placed{
			Path: []byte(m.Mountpoint), Source: []byte(m.Source), Options: options,
			Sealed: slices.Contains(strings.Split(m.VFSOptions, ","), "ro"), Device: device,
		})
	}
	return nil
}

func (d *dump) readMounts() ([]byte, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", d.container.InitPid()))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return text, nil
}

// inOneView: all processes are in the mount namespace of init.
func (d *dump) inOneView(pids []int) error {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", d.container.InitPid()))
	if err != nil {
		return err
	}
	for _, pid := range pids {
		of, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just ended
		}
		if err != nil {
			return err
		}
		if of != own {
			return fmt.Errorf("%w: process %d has some of its own", errMounts, pid)
		}
	}
	return nil
}

// addTmpfs names them in the request.
func (d *dump) addTmpfs(options *criu.Options) {
	for i := range d.tmpfs {
		path := string(d.tmpfs[i].Path)
		options.ExtMnt = append(options.ExtMnt, &criu.ExtMount{Key: &path, Val: &path})
	}
}

// mountsAreSame is asked when nothing runs any more.
func (d *dump) mountsAreSame(pids []int) error {
	if len(d.tmpfs) == 0 {
		return nil
	}
	now, err := d.readMounts()
	if err != nil {
		return err
	}
	if !bytes.Equal(now, d.mounts) {
		return errMounts
	}
	room := int64(tmpfs.Limit)
	for _, m := range d.tmpfs {
		device, size, err := tmpfs.Look(d.container.InitPid(), string(m.Path))
		if err != nil || device != m.Device {
			return errors.Join(fmt.Errorf("%w: %s", errMounts, m.Path), err)
		}
		if room -= size; room < 0 {
			return fmt.Errorf("%w: more than %d MiB are in them", errMounts, tmpfs.Limit>>20)
		}
	}
	return d.inOneView(pids)
}

// saveTmpfs writes what is in them. CRIU may have given names there to files that have none any more.
func (d *dump) saveTmpfs() error {
	if len(d.tmpfs) == 0 {
		return nil
	}
	return tmpfs.Save(d.options.ImagesDir, d.container.InitPid(), d.tmpfs)
}
