package preflight

import (
	"fmt"
	"strings"
	"syscall"
)

// ghost is a file that is in use and has no name any more. CRIU saves its content, without holes, while the container stands
// still. The zero value is none.
type ghost struct {
	device, inode uint64
	bytes         uint64 // on the disk
}

// ghostOf tells by what a link of /proc says and leads to. Memory files (memfd, System V, shared anonymous) are none: CRIU
// saves them as memory.
func ghostOf(link string, st *syscall.Stat_t) ghost {
	const zero, segment, memory = "/dev/zero", "/SYSV", "/memfd:"
	if st.Nlink > 0 || st.Mode&syscall.S_IFMT != syscall.S_IFREG || !strings.HasPrefix(link, "/") ||
		strings.HasPrefix(link, zero) || strings.HasPrefix(link, segment) || strings.HasPrefix(link, memory) {
		return ghost{}
	}
	return ghost{device: st.Dev, inode: st.Ino, bytes: uint64(st.Blocks) * 512}
}

const (
	// MostDeleted is how many bytes on the disk CRIU saves of a deleted file: its limit is a number of 32 bits.
	MostDeleted = 1<<32 - 1

	leastDeleted  = 1 << 20  // less than that is not worth a word
	costlyDeleted = 64 << 20 // from here on the time shows
)

// judgeGhosts names the deleted files whose content is copied while the container stands still, and says how much it is.
func (c *container) judgeGhosts() (Findings, uint64) {
	var f Findings
	var sum uint64
	seen := make(map[[2]uint64]bool)
	judge := func(p *proc, name string, g ghost) {
		id := [2]uint64{g.device, g.inode}
		if g.inode == 0 || seen[id] {
			return
		}
		seen[id] = true
		if bytes, ahead := c.subject.Ahead[id]; ahead {
			f = append(f, p.finding(Note, DeletedFile, "", "has the deleted file %s open: its %s travel while the container runs",
				strings.TrimSuffix(name, " (deleted)"), size(bytes)))
			return
		}
		sum += g.bytes
		name = strings.TrimSuffix(name, " (deleted)")
		const cure = "let it be closed, or given a name: a file with a name travels while the container runs"
		switch {
		case g.bytes > MostDeleted:
			f = append(f, p.finding(Blocker, DeletedFile, cure, "has the deleted file %s open, which has %s: CRIU saves up to 4 GiB of one", name, size(g.bytes)))
		case g.bytes >= costlyDeleted:
			f = append(f, p.finding(Warning, DeletedFile, cure,
				"has the deleted file %s open: its %s are copied while the container stands still, at 1 to 3 s a GB", name, size(g.bytes)))
		case g.bytes >= leastDeleted:
			f = append(f, p.finding(Note, DeletedFile, "", "has the deleted file %s open: its %s are copied while the container stands still", name, size(g.bytes)))
		}
	}
	for _, p := range c.processes {
		for i := range p.descriptors {
			judge(p, p.descriptors[i].link, p.descriptors[i].ghost)
		}
		for i := range p.mappings {
			m := &p.mappings[i]
			if !strings.HasSuffix(m.name, " (deleted)") {
				continue
			}
			if st, err := p.stat(m); err == nil {
				judge(p, m.name, ghostOf(m.name, &st))
			}
		}
	}
	if seconds, costs := rereading(c.subject.Reread); costs {
		f = append(f, Finding{
			Severity: Warning, Code: string(DeletedFile),
			Text: fmt.Sprintf("deleted files of %s are open for writing: they travel while the container runs, but all of them is read again while it "+
				"stands still, some %.1f s from the page cache, and what lies on the disk alone takes longer", size(c.subject.Reread), seconds),
			Cure: "let them be closed, or given a name: of a file with a name what has changed is known",
		})
	}
	return f, sum
}

// rereading is the time that a comparison takes, by two processors and from the page cache, and whether it is worth a warning.
func rereading(bytes uint64) (seconds float64, costs bool) {
	const least, second = 1 << 30, 10 << 30
	return float64(bytes) / second, bytes >= least
}
