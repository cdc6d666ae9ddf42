package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
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
	entry := &inventory.InventoryEntry{}
	if len(records) != 1 || proto.Unmarshal(records[0], entry) != nil {
		return damaged(inventoryName, "not CRIU's inventory")
	}
	if entry.GetImgVersion() != imgVersion {
		return damaged(inventoryName, "image version %d, known is %d", entry.GetImgVersion(), imgVersion)
	}
	return nil
}

// CheckTree wants a core image for every task and thread of the tree. A dump can lack one though CRIU reports success: of a
// thread that was just ending when its process was seized.
func CheckTree(dir string) error {
	const name = "pstree.img"
	records, err := readRecords(dir, name, 0x50273030)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return damaged(name, "no processes in it")
	}
	for _, record := range records {
		entry := &pstree.PstreeEntry{}
		if err := proto.Unmarshal(record, entry); err != nil {
			return damaged(name, "%v", err)
		}
		for _, id := range append([]uint32{entry.GetPid()}, entry.GetThreads()...) {
			if id == 0 {
				continue // the thread of a zombie
			}
			core := fmt.Sprintf("core-%d.img", id)
			if _, err := os.Stat(filepath.Join(dir, core)); errors.Is(err, os.ErrNotExist) {
				return damaged(core, "the file is missing")
			}
		}
	}
	return nil
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
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, damaged(name, "the file is missing")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > 16*maxRecord {
		return nil, damaged(name, "%d bytes are too many", info.Size())
	}
	content, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return parseRecords(name, content, magic)
}

func parseRecords(name string, content []byte, magic uint32) ([][]byte, error) {
	want := []uint32{commonMagic, magic}
	if magic == 0 {
		want = []uint32{inventoryMagic}
	}
	for _, m := range want {
		if len(content) < 4 || binary.LittleEndian.Uint32(content) != m {
			return nil, damaged(name, "not the CRIU image that its name says")
		}
		content = content[4:]
	}
	var records [][]byte
	for len(content) > 0 {
		if len(content) < 4 {
			return nil, damaged(name, "cut in the middle of a record")
		}
		size := binary.LittleEndian.Uint32(content)
		content = content[4:]
		if size > maxRecord || uint64(size) > uint64(len(content)) {
			return nil, damaged(name, "cut in the middle of a record")
		}
		records = append(records, content[:size])
		content = content[size:]
	}
	return records, nil
}

// Fields of CRIU's pagemap_head and pagemap_entry (images/pagemap.proto), read by hand: the count of pages moved from the
// 32 bits of field 2 to the 64 of field 5 in CRIU 4.2, and field 2 is no longer always there.
const (
	headPagesID = 1
	entryPages  = 2
	entryParent = 3
	entryFlags  = 4
	entryPages2 = 5

	flagParent  = 1
	flagPresent = 4
)

// countPages adds up what the map's entries say is in the page file.
func countPages(name string, records [][]byte, pages map[uint64]uint64) error {
	if len(records) == 0 {
		return damaged(name, "cut before its first record")
	}
	head, err := varints(records[0])
	if err != nil {
		return damaged(name, "%v", err)
	}
	id := head[headPagesID]
	for _, record := range records[1:] {
		entry, err := varints(record)
		if err != nil {
			return damaged(name, "%v", err)
		}
		count := max(entry[entryPages], entry[entryPages2])
		if count > 1<<52 {
			return damaged(name, "%d pages in one entry", count)
		}
		flags, known := entry[entryFlags]
		if !known {
			flags = flagPresent // CRIU before 2.4
		}
		if entry[entryParent] == 0 && flags&flagParent == 0 && flags&flagPresent != 0 {
			pages[id] += count
		}
	}
	return nil
}

// varints are the message's integer fields by number.
func varints(message []byte) (map[protowire.Number]uint64, error) {
	fields := map[protowire.Number]uint64{}
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		message = message[n:]
		if kind == protowire.VarintType {
			value, n := protowire.ConsumeVarint(message)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			fields[number] = value
			message = message[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return nil, protowire.ParseError(n)
		}
		message = message[n:]
	}
	return fields, nil
}
