package preflight

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/fs"
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
func (c *container) judgeWatches(ctx context.Context, p *proc) Findings {
	var f Findings
	var known map[uint64]bool
	severity := Blocker
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
			if !ok || strings.Contains(m.options, "nfs_export=on") {
				continue
			}
			if known == nil {
				var all bool
				if known, all = wellKnown(ctx, p.path("root")); !all {
					severity = Warning
				}
			}
			if known[w.inode] {
				continue
			}
			f = append(f, p.finding(severity, WatchedOverlay,
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

// mostWellKnown bounds the search for watched files, which costs some microseconds for each that there is.
const mostWellKnown = 1 << 16

// wellKnown are the inodes of the files below a root that CRIU (criu/irmap.c) looks at to find a watched one; all tells whether
// none is left out.
func wellKnown(ctx context.Context, path string) (inodes map[uint64]bool, all bool) {
	inodes = make(map[uint64]bool)
	var root syscall.Stat_t
	if syscall.Stat(path+"/", &root) == nil {
		inodes[root.Ino] = true
	}
	for _, hint := range []string{
		"/etc", "/var/spool", "/var/log", "/usr/share/dbus-1/services", "/usr/share/dbus-1/system-services",
		"/var/lib/polkit-1/localauthority", "/usr/share/polkit-1/actions", "/lib/udev",
	} {
		top, err := fs.OpenWithin(path, hint)
		if err != nil {
			continue // a name that is not there is not the one
		}
		all := addTree(ctx, top, inodes)
		_ = top.Close()
		if !all {
			return inodes, false
		}
	}
	return inodes, true
}

// addTree adds the inodes of a directory and of all below it, as far as there is room for them.
func addTree(ctx context.Context, top *fs.Dir, inodes map[uint64]bool) (all bool) {
	for todo := []string{""}; len(todo) > 0; {
		path := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		dir, err := top.Beneath(path)
		if err != nil {
			continue // gone meanwhile
		}
		names, _ := dir.Names()
		for _, name := range append(names, "") {
			if len(inodes) >= mostWellKnown || ctx.Err() != nil {
				_ = dir.Close()
				return false
			}
			st, err := dir.Stat(name)
			if err != nil {
				continue
			}
			inodes[st.Ino] = true
			if name != "" && st.IsDir() {
				todo = append(todo, filepath.Join(path, name))
			}
		}
		_ = dir.Close()
	}
	return true
}
