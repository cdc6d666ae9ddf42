package preflight

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// mount is a line of /proc/PID/mountinfo.
type mount struct {
	id, device, point, kind, options string
}

// readMounts reads the mounts of every mount namespace in the container.
func (c *container) readMounts() {
	c.mounts, c.ids = make(map[string]mount), make(map[string]bool)
	seen := make(map[string]bool)
	for _, p := range c.processes {
		if space := p.namespaces["mnt"]; seen[space] {
			continue
		} else if text, err := os.ReadFile(p.path("mountinfo")); err == nil {
			seen[space] = true
			for _, m := range parseMounts(text) {
				c.mounts[m.id], c.ids[m.id] = m, true
			}
		}
	}
}

// parseMounts reads mountinfo of proc(5):
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func parseMounts(text []byte) []mount {
	var all []mount
	for line := range bytes.Lines(text) {
		place, filesystem, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " - ")
		left, right := strings.Fields(place), strings.Fields(filesystem)
		if len(left) < 5 || len(right) < 3 {
			continue
		}
		all = append(all, mount{id: left[0], device: left[2], point: left[4], kind: right[0], options: right[2]})
	}
	return all
}

// overlay finds the mount of an overlay by its device.
func (c *container) overlay(device uint64) (mount, bool) {
	// The kernel's own coding of device numbers: 12 bits of major, 20 of minor.
	name := strconv.FormatUint(device>>20, 10) + ":" + strconv.FormatUint(device&(1<<20-1), 10)
	for _, m := range c.mounts {
		if m.device == name && m.kind == "overlay" {
			return m, true
		}
	}
	return mount{}, false
}

// judgeWatches finds inotify watches that CRIU cannot name. It opens the watched file by its handle, which an overlay does
// not allow unless it was mounted for it; then it looks in a few directories that such programs usually watch.
func (c *container) judgeWatches(p *proc) Findings {
	var f Findings
	for i := range p.descriptors {
		d := &p.descriptors[i]
		if d.link != "anon_inode:inotify" {
			continue
		}
		text, err := os.ReadFile(p.path("fdinfo/" + strconv.Itoa(d.number)))
		if err != nil {
			continue
		}
		for _, w := range parseWatches(text) {
			m, ok := c.overlay(w.device)
			if !ok || strings.Contains(m.options, "nfs_export=on") || p.isWellKnown(w) {
				continue
			}
			f = append(f, p.finding(Blocker, WatchedOverlay,
				"let it watch a volume instead, or mount the overlay with index=on,nfs_export=on",
				"watches files of an overlay by inotify (descriptor %d), by names that cannot be found out", d.number))
			break
		}
	}
	return f
}

// watch is what inotify watches.
type watch struct{ device, inode uint64 }

// parseWatches reads the lines of fdinfo: "inotify wd:1 ino:9908f4 sdev:51 mask:100 ...", in hexadecimal digits.
func parseWatches(text []byte) []watch {
	var all []watch
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("inotify ")) {
			continue
		}
		var w watch
		for field := range strings.FieldsSeq(string(line)) {
			key, value, _ := strings.Cut(field, ":")
			switch key {
			case "ino":
				w.inode, _ = strconv.ParseUint(value, 16, 64)
			case "sdev":
				w.device, _ = strconv.ParseUint(value, 16, 64)
			}
		}
		all = append(all, w)
	}
	return all
}

// isWellKnown tells whether the watched file is where CRIU (criu/irmap.c) looks for it.
func (p *proc) isWellKnown(w watch) bool {
	found := false
	for _, hint := range []string{
		"/etc", "/var/spool", "/var/log", "/usr/share/dbus-1/services", "/usr/share/dbus-1/system-services",
		"/var/lib/polkit-1/localauthority", "/usr/share/polkit-1/actions", "/lib/udev",
	} {
		_ = filepath.WalkDir(p.path("root")+hint, func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // a name that is not there is not the one
			}
			if info, err := e.Info(); err == nil {
				found = info.Sys().(*syscall.Stat_t).Ino == w.inode
			}
			if found {
				return fs.SkipAll
			}
			return nil
		})
		if found {
			return true
		}
	}
	var root syscall.Stat_t
	return syscall.Stat(p.path("root/"), &root) == nil && root.Ino == w.inode
}
