package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// Left is the memory of a process that is not in the images.
type Left struct {
	Pid   int            // in this process's pid namespace
	VPid  int            // in the container's, by which images are named
	Pages []memory.Range // by address, none touching the next; may be none
}

// claimsName is the parent of a skipping dump, in the image directory. It is gone when Begin returns.
const claimsName = ".claims"

// addWay sets what the way of private memory needs in the request.
func (d *dump) addWay(options *criu.Options) error {
	switch d.way {
	case WaySkip:
		if !d.client.Pretends() {
			if err := ClearsSoftDirty(d.container); err != nil {
				return err
			}
		}
		up, err := uptime()
		if err != nil {
			return err
		}
		if err := os.RemoveAll(d.claims()); err != nil { // of a dump that was killed
			return err
		}
		if err := image.WriteClaims(d.claims(), up); err != nil {
			return err
		}
		parent, track := claimsName, true
		options.ParentImg, options.TrackMem = &parent, &track
	case WayLazy:
		path, err := d.writeConfig(options.GetConfigFile())
		if err != nil {
			return err
		}
		options.ConfigFile, options.LazyPages = &path, ptr(true)
		options.LeaveRunning = ptr(false) // CRIU would refuse; see Held.Commit
	}
	return nil
}

func (d *dump) claims() string { return filepath.Join(d.options.ImagesDir, claimsName) }

// uptime is how long the system runs.
func uptime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, fmt.Errorf("read uptime: %w", err)
	}
	var seconds float64
	if _, err := fmt.Sscan(string(text), &seconds); err != nil {
		return 0, fmt.Errorf("read uptime %q: %w", text, err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// writeConfig makes a configuration file for this request: RPC has no field for the socket. What the container's own says
// is kept.
func (d *dump) writeConfig(own string) (string, error) {
	var text []byte
	if own != "" {
		var err error
		if text, err = os.ReadFile(own); err != nil {
			return "", fmt.Errorf("read criu's configuration: %w", err)
		}
	}
	text = fmt.Appendf(text, "\nps-socket %d\n", criu.FirstFile)
	f, err := os.CreateTemp("", "migrate-criu-*.conf")
	if err != nil {
		return "", fmt.Errorf("write criu's configuration: %w", err)
	}
	d.config = f.Name()
	if _, err = f.Write(text); err != nil {
		return "", errors.Join(fmt.Errorf("write criu's configuration: %w", err), f.Close())
	}
	return d.config, f.Close()
}

// claim lists the processes in the claims, now that they are frozen and none can be born. What is not listed is dumped in
// full.
func (d *dump) claim() error {
	if d.way != WaySkip {
		return nil
	}
	pids, err := d.vpids()
	if err != nil {
		return err
	}
	d.pids = pids
	var vpids []int
	for vpid, pid := range pids {
		vpids = append(vpids, vpid)
		if d.client.Pretends() {
			continue
		}
		// The kernel does track: what is written from here on is dirty, and nothing writes.
		err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("4"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reset memory tracking: %w", err)
		}
	}
	return image.Claim(d.claims(), vpids)
}

// vpids are the container's processes by their number in its pid namespace.
func (d *dump) vpids() (map[int]int, error) {
	pids, err := d.container.Processes()
	if err != nil {
		return nil, err
	}
	init, err := process.ReadStatus(d.container.InitPid())
	if err != nil {
		return nil, err
	}
	level := len(init.Pids) - 1
	byVPid := map[int]int{}
	for _, pid := range pids {
		status, err := process.ReadStatus(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if level < len(status.Pids) {
			byVPid[status.Pids[level]] = pid
		}
	}
	return byVPid, nil
}

// leave ends the images of a dump that left memory out, and finds what that is. The processes stand.
func (d *dump) leave() error {
	if d.way == WayFull {
		return nil
	}
	var err error
	if d.pids == nil { // none was born since the claim
		if d.pids, err = d.vpids(); err != nil {
			return err
		}
	}
	maps, err := image.Resolve(d.options.ImagesDir, func(vpid int) (image.Memory, error) { return openMemory(d.pids, vpid) })
	if err != nil {
		return err
	}
	for _, m := range maps {
		if err := m.KeepPresent(d.options.ImagesDir); err != nil {
			return err
		}
		left := Left{Pid: d.pids[m.VPid], VPid: m.VPid, Pages: m.Left()}
		if left.Pid == 0 && len(left.Pages) > 0 {
			return errNotInCgroup(m.VPid)
		}
		d.left = append(d.left, left)
	}
	return d.forget()
}

// openMemory opens a process's memory by its number in the container.
func openMemory(pids map[int]int, vpid int) (image.Memory, error) {
	pid := pids[vpid]
	if pid == 0 {
		return nil, errNotInCgroup(vpid)
	}
	return os.Open(fmt.Sprintf("/proc/%d/mem", pid))
}

// errNotInCgroup: CRIU follows the tree, we the cgroup, which also freezes it.
func errNotInCgroup(vpid int) error {
	return fmt.Errorf("process %d of the container is not in its cgroup", vpid)
}

// forget removes what only CRIU needed.
func (d *dump) forget() error {
	var err error
	if d.config != "" {
		err = os.Remove(d.config)
		d.config = ""
	}
	if d.way != WaySkip {
		return err
	}
	// A dump that failed has left the link.
	link := filepath.Join(d.options.ImagesDir, "parent")
	if to, linkErr := os.Readlink(link); linkErr == nil && strings.TrimSuffix(to, "/") == claimsName {
		err = errors.Join(err, os.Remove(link))
	}
	return errors.Join(err, os.RemoveAll(d.claims()))
}
