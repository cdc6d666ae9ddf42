package unlinked

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// mount is one of the container's whose root directory travels.
type mount struct {
	point string
	root  int    // index of the directory
	dev   uint64 // of that
}

// certain are the filesystems where a mount and an inode number name one file: those with subvolumes have a number more than
// once. What else an overlay may have is told from its files' device.
func certain() []string {
	return []string{"ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs", "overlay"}
}

// mounts are those of process init whose root is one of the directories and that nothing is mounted over, by their ids.
func mounts(init int, roots []fs.Stat) (map[int]mount, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", init))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all := make(map[int]mount)
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		kind, _, _ := strings.Cut(after, " ")
		if !ok || len(fields) < 6 || !slices.Contains(certain(), kind) {
			continue
		}
		id, err := strconv.Atoi(fields[0])
		if err != nil {
			continue
		}
		m, ok := look(init, id, unescape(fields[4]))
		if !ok {
			continue
		}
		for i := range roots {
			if m.Same(&roots[i]) {
				all[id] = mount{point: unescape(fields[4]), root: i, dev: m.Dev}
				break
			}
		}
	}
	return all, lines.Err()
}

// look finds the mount's root, if it is a directory that the container sees there.
func look(init, id int, point string) (*fs.Stat, bool) {
	dir, err := fs.OpenWithin(fmt.Sprintf("/proc/%d/root", init), point)
	if err != nil {
		return nil, false
	}
	defer dir.Close()
	if there, err := fs.MountOf(dir.Fd()); err != nil || there != id {
		return nil, false
	}
	st, err := dir.Stat("")
	return &st, err == nil
}

// unescape undoes what mountinfo does to blanks, tabs, line feeds and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
