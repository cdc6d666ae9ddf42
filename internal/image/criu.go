package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// CRIU's file format (criu/include/magic.h, criu/image.c): two magics, little endian, then records of a length and a
// protobuf message. inventory.img has one magic only. Images of other shapes (raw dumps of ip(8), tar archives) are not
// looked into.
const (
	commonMagic    = 0x54564319
	inventoryMagic = 0x58313116
	imgVersion     = 2 // CRTOOLS_IMAGES_V1_1; there has been no other since CRIU 1.5
	pageSize       = 4096
)

// frame is a kind of image by its name.
type frame struct {
	name  *regexp.Regexp
	magic uint32
}

// framed are the images whose records are nothing but protobuf, with the magic of each.
func framed() []frame {
	return []frame{
		{regexp.MustCompile(`^pstree\.img$`), 0x50273030},
		{regexp.MustCompile(`^core-\d+\.img$`), 0x55053847},
		{regexp.MustCompile(`^mm-\d+\.img$`), 0x57492820},
		{regexp.MustCompile(`^pagemap-(shmem-)?\d+\.img$`), 0x56084025},
		{regexp.MustCompile(`^fdinfo-\d+\.img$`), 0x56213732},
		{regexp.MustCompile(`^files\.img$`), 0x56303138},
		{regexp.MustCompile(`^ids-\d+\.img$`), 0x54432030},
		{regexp.MustCompile(`^fs-\d+\.img$`), 0x51403912},
		{regexp.MustCompile(`^mountpoints-\d+\.img$`), 0x55563928},
		{regexp.MustCompile(`^seccomp\.img$`), 0x64413049},
	}
}

// maxRecord bounds one protobuf message. The largest known, a files.img entry or an mm with many mappings, is far below.
const maxRecord = 64 << 20

// checkCRIU finds what is missing or cut in a directory without a manifest: magics, framing, a core for every task, pages
// for every map. whole: it is a dump with its inventory; a pre-dump has memory only.
func checkCRIU(dir string, whole bool) error {
	if whole {
		if err := checkInventory(dir); err != nil {
			return err
		}
	}
	names, err := list(dir)
	if err != nil {
		return err
	}
	kinds := framed()
	pages := map[uint64]uint64{} // pages id: pages that the maps say are in the file
	for _, name := range names {
		for _, f := range kinds {
			if !f.name.MatchString(name) {
				continue
			}
			records, err := readRecords(dir, name, f.magic)
			if err != nil {
				return err
			}
			if f.magic == 0x56084025 {
				if err := countPages(name, records, pages); err != nil {
					return err
				}
			}
		}
	}
	if err := checkPages(dir, pages); err != nil {
		return err
	}
	if whole {
		return CheckTree(dir)
	}
	return nil
}

func checkInventory(dir string) error {
	records, err := readRecords(dir, inventoryName, 0)
	if err != nil {
		return err
	}
	if len(records) != 1 {
		return damaged(inventoryName, "not CRIU's inventory")
	}
	entry, err := parseEntry(records[0])
	if err != nil {
		return damaged(inventoryName, "not CRIU's inventory")
	}
	const version = 1 // field of images/inventory.proto
	if got := entry.number(version); got != imgVersion {
		return damaged(inventoryName, "image version %d, known is %d", got, imgVersion)
	}
	return nil
}

// CheckTree wants a core image for every task and thread of the tree. A dump can lack one though CRIU reports success: of a
// thread that was just ending when its process was seized.
func CheckTree(dir string) error {
	tasks, err := readTree(dir)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		for _, id := range append(t.threads, t.pid) {
			core := fmt.Sprintf("core-%d.img", id)
			if _, err := os.Stat(filepath.Join(dir, core)); errors.Is(err, os.ErrNotExist) {
				return damaged(core, "the file is missing")
			}
		}
	}
	return nil
}

// HighestPid is the greatest number that a process, thread, group or session of the set has in the container.
func HighestPid(dir string) (int, error) {
	tasks, err := readTree(dir)
	if err != nil {
		return 0, err
	}
	var highest uint64
	for _, t := range tasks {
		highest = max(highest, t.pid, t.group, t.session, slices.Max(append(t.threads, 0)))
	}
	if highest > maxPid {
		return 0, damaged(treeName, "process number %d", highest)
	}
	return int(highest), nil
}

const (
	treeName = "pstree.img"
	maxPid   = 1 << 22 // PID_MAX_LIMIT of linux/threads.h
)

// task is one process of the tree.
type task struct {
	pid, group, session uint64
	threads             []uint64 // none for a process of one thread
}

func readTree(dir string) ([]task, error) {
	records, err := readRecords(dir, treeName, 0x50273030)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, damaged(treeName, "no processes in it")
	}
	var tasks []task
	for _, record := range records {
		const pid, group, session, threads = 1, 3, 4, 5 // fields of images/pstree.proto
		entry, err := parseEntry(record)
		if err != nil {
			return nil, damaged(treeName, "%v", err)
		}
		ids, err := entry.list(threads)
		if err != nil {
			return nil, damaged(treeName, "%v", err)
		}
		if len(ids) == 1 {
			ids = nil // the task itself, or, of a zombie, what was in CRIU's memory: it never fills that in
		}
		tasks = append(tasks, task{entry.number(pid), entry.number(group), entry.number(session), ids})
	}
	return tasks, nil
}

// checkPages wants every page file to be as long as its maps say.
func checkPages(dir string, pages map[uint64]uint64) error {
	for id, count := range pages {
		if count == 0 {
			continue
		}
		name := fmt.Sprintf("pages-%d.img", id)
		info, err := os.Stat(filepath.Join(dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist) && isThere(dir, name+packedSuffix):
			return damaged(name, "it is compressed, and %s is missing (zstd -d %s unpacks it)", manifestName, name+packedSuffix)
		case errors.Is(err, os.ErrNotExist):
			return damaged(name, "the file is missing")
		case err != nil:
			return err
		case uint64(info.Size()) < count*pageSize:
			return damaged(name, "%d bytes, its maps name %d", info.Size(), count*pageSize)
		}
	}
	return nil
}

// readRecords splits an image into its messages. magic 0: the inventory's own.
func readRecords(dir, name string, magic uint32) ([][]byte, error) {
	content, err := readImage(dir, name)
	if err != nil {
		return nil, err
	}
	return parseRecords(name, content, magic)
}

func readImage(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, damaged(name, "the file is missing")
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > 16*maxRecord {
		return nil, damaged(name, "%d bytes are too many", info.Size())
	}
	return os.ReadFile(path)
}

func parseRecords(name string, content []byte, magic uint32) ([][]byte, error) {
	var records [][]byte
	err := eachRecord(name, content, magic, func(record []byte) error {
		records = append(records, record)
		return nil
	})
	return records, err
}

// eachRecord calls f for one message after the other; it does not copy.
func eachRecord(name string, content []byte, magic uint32, f func(record []byte) error) error {
	want := []uint32{commonMagic, magic}
	if magic == 0 {
		want = []uint32{inventoryMagic}
	}
	for _, m := range want {
		if len(content) < 4 || binary.LittleEndian.Uint32(content) != m {
			return damaged(name, "not the CRIU image that its name says")
		}
		content = content[4:]
	}
	for len(content) > 0 {
		if len(content) < 4 {
			return damaged(name, "cut in the middle of a record")
		}
		size := binary.LittleEndian.Uint32(content)
		content = content[4:]
		if size > maxRecord || uint64(size) > uint64(len(content)) {
			return damaged(name, "cut in the middle of a record")
		}
		if err := f(content[:size]); err != nil {
			return err
		}
		content = content[size:]
	}
	return nil
}

// Fields of CRIU's pagemap_head and pagemap_entry (images/pagemap.proto), read by hand: the count of pages moved from the
// 32 bits of field 2 to the 64 of field 5 in CRIU 4.2, and field 2 is no longer always there.
const (
	headPagesID  = 1
	entryAddress = 1
	entryPages   = 2
	entryParent  = 3
	entryFlags   = 4
	entryPages2  = 5

	flagParent  = 1
	flagPresent = 4
)

// countPages adds up what the map's entries say is in the page file.
func countPages(name string, records [][]byte, pages map[uint64]uint64) error {
	if len(records) == 0 {
		return damaged(name, "cut before its first record")
	}
	head, err := parseEntry(records[0])
	if err != nil {
		return damaged(name, "%v", err)
	}
	id := head.number(headPagesID)
	for _, record := range records[1:] {
		entry, err := parseEntry(record)
		if err != nil {
			return damaged(name, "%v", err)
		}
		count := max(entry.number(entryPages), entry.number(entryPages2))
		if count > 1<<52 {
			return damaged(name, "%d pages in one entry", count)
		}
		flags := uint64(flagPresent) // what an entry of CRIU before 2.4 means
		if len(entry.numbers[entryFlags]) > 0 {
			flags = entry.number(entryFlags)
		}
		if entry.number(entryParent) == 0 && flags&flagParent == 0 && flags&flagPresent != 0 {
			pages[id] += count
		}
	}
	return nil
}
