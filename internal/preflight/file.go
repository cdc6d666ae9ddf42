package preflight

import (
	"debug/elf"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// File is one that is open or mapped in the container and does not travel: CRIU wants it to be the same at the peer.
type File struct {
	Path     string // on the host
	Inside   string // in the container
	Size     int64
	BuildID  string // of a program or library
	Writable bool   // it may change in the meantime
}

// maxFiles bounds what is sent of them.
const maxFiles = 1024

// files are those that lie in bind mounts which do not travel.
func (c *container) files() []File {
	seen, changing := make(map[string]bool), c.changing()
	var all []File
	look := func(name string) {
		destination, source, ok := c.bind(name)
		if !ok || seen[name] || len(all) >= maxFiles {
			return
		}
		seen[name] = true
		f := File{Path: filepath.Join(source, strings.TrimPrefix(name, destination)), Inside: name, Writable: changing[name]}
		info, err := os.Stat(f.Path)
		if err != nil || !info.Mode().IsRegular() {
			return // deleted, or no file of bytes
		}
		f.Size = info.Size()
		f.BuildID = buildID(f.Path)
		all = append(all, f)
	}
	for _, p := range c.processes {
		for i := range p.mappings {
			look(p.mappings[i].name)
		}
		for i := range p.descriptors {
			look(p.descriptors[i].link)
		}
	}
	return all
}

// changing are the names of files that may grow while the hosts look: open ones, also those that are mapped besides, and those
// that are mapped so that writing changes the file.
func (c *container) changing() map[string]bool {
	names := make(map[string]bool)
	for _, p := range c.processes {
		for i := range p.descriptors {
			names[p.descriptors[i].link] = true
		}
		for i := range p.mappings {
			if p.mappings[i].shared {
				names[p.mappings[i].name] = true
			}
		}
	}
	return names
}

// bind is the bind mount that a file of the container lies in.
func (c *container) bind(name string) (destination, source string, ok bool) {
	for d, s := range c.subject.Binds {
		d = path.Clean("/" + d)
		if (name == d || strings.HasPrefix(name, d+"/")) && len(d) > len(destination) {
			destination, source, ok = d, s, true
		}
	}
	return destination, source, ok
}

// buildID is what a linker has put into a program to tell it from others, "" for none. Nothing but a regular file is read, and
// none is waited for: the name may be the other host's word.
func buildID(name string) string {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := elf.NewFile(file)
	if err != nil {
		return ""
	}
	section := f.Section(".note.gnu.build-id")
	const longest = 4096 // far above any
	if section == nil || max(section.Size, section.FileSize) > longest {
		return ""
	}
	note, err := section.Data()
	const header = 16 // sizes and type, then "GNU\0"
	if err != nil || len(note) <= header {
		return ""
	}
	return hex.EncodeToString(note[header:])
}

// judgeFiles compares them with those of this host, which is the peer.
func judgeFiles(files []File) Findings {
	var f Findings
	for _, file := range files {
		info, err := os.Stat(file.Path)
		switch {
		case err != nil:
			f.add(Blocker, FileMissing, "copy it here", "%s, which the container uses as %s, is not on this host", file.Path, file.Inside)
		case !info.Mode().IsRegular():
			f.add(Blocker, FileDiffers, "copy the source's here", "%s, which the container uses as %s, is no regular file on this host", file.Path, file.Inside)
		case file.Writable && info.Size() != file.Size:
			f.add(Warning, FileDiffers, "see that both hosts have the same directory mounted",
				"%s, which the container has open as %s, has %d bytes here and %d at the source", file.Path, file.Inside, info.Size(), file.Size)
		case info.Size() != file.Size:
			f.add(Blocker, FileDiffers, "copy the source's here", "%s, which the container has mapped as %s, has %d bytes here and %d at the source",
				file.Path, file.Inside, info.Size(), file.Size)
		case file.BuildID != "" && buildID(file.Path) != file.BuildID:
			f.add(Blocker, FileDiffers, "copy the source's here", "%s, which the container uses as %s, is another build here", file.Path, file.Inside)
		}
	}
	return f
}

// judgeAddresses finds those that this host, the peer, does not have.
func judgeAddresses(wanted []string) Findings {
	if len(wanted) == 0 {
		return nil
	}
	var f Findings
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		f.add(Warning, HostNetwork, "", "this host's addresses cannot be listed: %v", err)
		return f
	}
	have := make([]string, 0, len(addresses))
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			have = append(have, n.IP.String())
		}
	}
	for _, address := range wanted {
		if !slices.Contains(have, address) {
			f.add(Blocker, HostNetwork, "give the container a network of its own (--network), or this host the address",
				"%s", fmt.Sprintf("the container shares its host's network and has sockets bound to %s, which this host does not have", address))
		}
	}
	return f
}
