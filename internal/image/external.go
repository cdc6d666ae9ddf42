package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of CRIU's file_entry, reg_file_entry, remap_file_path_entry and ghost_file_entry, and its words for kinds.
const (
	fileType    = 1
	fileID      = 2
	fileRegular = 3

	regularID       = 1
	regularFlags    = 2
	regularPosition = 3
	regularOwner    = 5
	regularName     = 6
	regularMount    = 7
	regularExternal = 9

	remapFile = 1
	remapTo   = 2
	remapType = 3

	ghostDevice = 4
	ghostInode  = 5

	typeRegular = 1 // fd_types
	typeLinked  = 0 // remap_type

	remapName  = "remap-fpath.img"
	remapMagic = 0x59133954
	ghostMagic = 0x52583605
)

// ExternalFile is an open file that a dump has left to somebody else (criu.ExternalFile): there may be several of one inode.
type ExternalFile struct {
	ID    uint32 // in the images
	Mount int
	Inode uint64
}

// ExternalFiles are those of the set in dir.
func ExternalFiles(dir string) ([]ExternalFile, error) {
	records, err := readRecords(dir, filesName, filesMagic)
	if err != nil {
		return nil, err
	}
	var all []ExternalFile
	for _, record := range records {
		file, regular, err := parseRegular(record)
		if err != nil {
			return nil, err
		}
		if file.number(fileType) != typeRegular || regular.number(regularExternal) == 0 {
			continue
		}
		e := ExternalFile{ID: uint32(file.number(fileID))}
		name := regular.bytes[regularName]
		if len(name) == 0 {
			continue
		}
		if _, err := fmt.Sscanf(string(name[len(name)-1]), "file[%x:%x]", &e.Mount, &e.Inode); err == nil {
			all = append(all, e)
		}
	}
	return all, nil
}

const filesName = "files.img"

func parseRegular(record []byte) (file, regular *entry, err error) {
	if file, err = parseEntry(record); err != nil {
		return nil, nil, damaged(filesName, "%v", err)
	}
	if regular, err = file.child(fileRegular); err != nil {
		return nil, nil, damaged(filesName, "%v", err)
	}
	return file, regular, nil
}

// Relinked is an external file that has been given a name for the time of the restore.
type Relinked struct {
	ExternalFile
	Path string // what it was called in the container, before that name was deleted
	Link string // what it is called now, on the same mount: this name is the file's alone among those of one call
}

// Relink makes external files of the set in dir ordinary ones without a name, which CRIU finds by the name that it takes for one
// of its own (link_remap): the restore opens each under its old name, and removes both.
func Relink(dir string, relinked []Relinked) error {
	if len(relinked) == 0 {
		return nil
	}
	content, err := readImage(dir, filesName)
	if err != nil {
		return err
	}
	wanted := make(map[uint32]*Relinked)
	for i := range relinked {
		wanted[relinked[i].ID] = &relinked[i]
	}
	var highest uint32
	out := append([]byte(nil), content[:min(len(content), 8)]...) // two magic numbers, which the reader checks
	owners := make(map[uint32][]byte)
	err = eachRecord(filesName, content, filesMagic, func(record []byte) error {
		file, regular, err := parseRegular(record)
		if err != nil {
			return err
		}
		id := uint32(file.number(fileID))
		highest = max(highest, id)
		if r := wanted[id]; r != nil && file.number(fileType) == typeRegular {
			owner := regular.bytes[regularOwner]
			if len(owner) == 0 {
				return damaged(filesName, "file %d lacks an owner", id)
			}
			owners[id] = owner[len(owner)-1]
			record = relink(record, file, r)
		}
		out = appendRecord(out, record)
		return nil
	})
	if err != nil {
		return err
	}
	remaps, err := readRemaps(dir)
	if err != nil {
		return err
	}
	for i := range relinked {
		r := &relinked[i]
		owner, ok := owners[r.ID]
		if !ok || highest == 1<<32-1 {
			return damaged(filesName, "no file %d", r.ID)
		}
		highest++
		out = appendRecord(out, linkedFile(highest, r.Link, owner))
		remap := appendNumber(appendNumber(nil, remapFile, uint64(r.ID)), remapTo, uint64(highest))
		remaps = appendRecord(remaps, appendNumber(remap, remapType, typeLinked))
	}
	return errors.Join(replace(dir, filesName, out), replace(dir, remapName, remaps))
}

// relink is the record of an external file as that of one on its mount.
func relink(record []byte, file *entry, r *Relinked) []byte {
	raw := file.bytes[fileRegular]
	regular := without(raw[len(raw)-1], func(field protowire.Number) bool {
		return field == regularName || field == regularMount || field == regularExternal
	})
	regular = protowire.AppendString(protowire.AppendTag(regular, regularName, protowire.BytesType), r.Path)
	regular = appendNumber(regular, regularMount, protowire.EncodeZigZag(int64(r.Mount)))
	return appendRegular(without(record, func(field protowire.Number) bool { return field == fileRegular }), regular)
}

// linkedFile is the record that CRIU writes of a name it has made.
func linkedFile(id uint32, link string, owner []byte) []byte {
	regular := appendNumber(appendNumber(appendNumber(nil, regularID, uint64(id)), regularFlags, 0), regularPosition, 0)
	regular = protowire.AppendBytes(protowire.AppendTag(regular, regularOwner, protowire.BytesType), owner)
	regular = protowire.AppendString(protowire.AppendTag(regular, regularName, protowire.BytesType), link)
	return appendRegular(appendNumber(appendNumber(nil, fileType, typeRegular), fileID, uint64(id)), regular)
}

func appendRegular(file, regular []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(file, fileRegular, protowire.BytesType), regular)
}

func appendNumber(message []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(message, field, protowire.VarintType), value)
}

// readRemaps is the image of files that are found in another way than by their name; CRIU writes none without any.
func readRemaps(dir string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(dir, remapName))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(content) == 0 {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, commonMagic), remapMagic), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	return content, eachRecord(remapName, content, remapMagic, func([]byte) error { return nil })
}

// replace writes an image anew at one stroke.
func replace(dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	err := os.WriteFile(path+".new", content, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("rewrite image: %w", err)
	}
	return nil
}

// Ghosts are the files whose content CRIU has saved itself, because they had no name: device, as the kernel counts it, and inode.
func Ghosts(dir string) (map[[2]uint64]bool, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "ghost-file-*.img"))
	if err != nil {
		return nil, err
	}
	all := make(map[[2]uint64]bool)
	for _, path := range paths {
		ghost, err := readGhost(path)
		if err != nil {
			return nil, err
		}
		all[[2]uint64{ghost.number(ghostDevice), ghost.number(ghostInode)}] = true
	}
	return all, nil
}

// readGhost reads the first record; what comes after it is the content.
func readGhost(path string) (*entry, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	defer file.Close()
	name := filepath.Base(path)
	var head [12]byte // two magic numbers, a length
	if _, err := io.ReadFull(file, head[:]); err != nil || binary.LittleEndian.Uint32(head[4:]) != ghostMagic {
		return nil, damaged(name, "not the CRIU image that its name says")
	}
	size := binary.LittleEndian.Uint32(head[8:])
	if size > 1<<16 {
		return nil, damaged(name, "a record of %d bytes", size)
	}
	record := make([]byte, size)
	if _, err := io.ReadFull(file, record); err != nil {
		return nil, damaged(name, "cut in the middle of a record")
	}
	ghost, err := parseEntry(record)
	if err != nil {
		return nil, damaged(name, "%v", err)
	}
	return ghost, nil
}
