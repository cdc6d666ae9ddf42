package image

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// linkPrefix is how the names begin that CRIU makes.
const linkPrefix = "link_remap."

// HasLinkRemaps tells whether CRIU, with its option link_remap, has made hard links for open files whose name was deleted:
// link_remap.N, beside the name that they had. A restore needs them in the tree, and removes them.
func HasLinkRemaps(dir string) (bool, error) {
	files, err := os.ReadFile(filepath.Join(dir, filesName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read image: %w", err)
	}
	// Not decoded: a file of the container's with such a name costs one look too many.
	return bytes.Contains(files, []byte(linkPrefix)), nil
}

// LinkRemaps are the paths of those links in the container. Where they were made they stay, if the container does not run on.
func LinkRemaps(dir string) ([]string, error) {
	if has, err := HasLinkRemaps(dir); err != nil || !has {
		return nil, err
	}
	content, err := readRemaps(dir)
	if err != nil {
		return nil, err
	}
	linked := make(map[uint64]bool)
	err = eachRecord(remapName, content, remapMagic, func(record []byte) error {
		remap, err := parseEntry(record)
		if err != nil {
			return damaged(remapName, "%v", err)
		}
		if remap.number(remapType) == typeLinked {
			linked[remap.number(remapTo)] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	records, err := readRecords(dir, filesName, filesMagic)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, record := range records {
		file, regular, err := parseRegular(record)
		if err != nil {
			return nil, err
		}
		if file.number(fileType) != typeRegular || !linked[file.number(fileID)] || len(regular.bytes[regularName]) == 0 {
			continue
		}
		names := regular.bytes[regularName]
		if name := string(names[len(names)-1]); strings.HasPrefix(path.Base(name), linkPrefix) {
			all = append(all, name)
		}
	}
	return all, nil
}
