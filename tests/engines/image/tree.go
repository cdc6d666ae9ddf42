package image

import (
	"archive/tar"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
)

// tree is a root file system in memory, by name without a leading slash.
type tree struct {
	entries map[string]entry
}

type entry struct {
	header tar.Header
	data   []byte
}

func newTree() *tree {
	return &tree{entries: map[string]entry{}}
}

// addDirectory adds the directory, and those above it.
func (t *tree) addDirectory(name string, mode fs.FileMode) {
	t.addParents(name)
	bits := int64(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	t.add(name, tar.Header{Typeflag: tar.TypeDir, Mode: bits}, nil)
}

func (t *tree) addParents(name string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.entries[dir]; !ok {
			t.add(dir, tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}, nil)
		}
	}
}

// addFile adds what the source holds; links are followed.
func (t *tree) addFile(name, source string, mode fs.FileMode) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	t.addParents(name)
	t.add(name, tar.Header{Typeflag: tar.TypeReg, Mode: int64(mode.Perm())}, data)
	return nil
}

func (t *tree) addText(name, text string) {
	t.addParents(name)
	t.add(name, tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, []byte(text))
}

func (t *tree) addLink(name, target string) {
	t.addParents(name)
	t.add(name, tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: target}, nil)
}

func (t *tree) add(name string, header tar.Header, data []byte) {
	header.Name, header.Size = name, int64(len(data))
	t.entries[name] = entry{header: header, data: data}
}

// writeTo writes the tree as a tar archive, the same bytes for the same tree.
func (t *tree) writeTo(w io.Writer) error {
	archive := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		e := t.entries[name]
		if err := archive.WriteHeader(&e.header); err != nil {
			return err
		}
		if _, err := archive.Write(e.data); err != nil {
			return err
		}
	}
	return archive.Close()
}
