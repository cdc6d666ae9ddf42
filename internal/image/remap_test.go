package image

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// Only what CRIU has made is named: not a file of the container's with such a name, nor one that a ghost stands for.
func TestLinkRemaps(t *testing.T) {
	remap := func(from, to, kind uint64) []byte {
		return appendNumber(appendNumber(appendNumber(nil, remapFile, from), remapTo, to), remapType, kind)
	}
	dir := t.TempDir()
	if got, err := LinkRemaps(dir); err != nil || got != nil {
		t.Errorf("without images: %v, %v", got, err)
	}
	files := [][]byte{
		regularRecord(t, 1, "/data/link_remap.1", false), regularRecord(t, 2, "/data/gone", false),
		linkedFile(3, "/data/link_remap.3", nil), linkedFile(4, "/data/link_remap.4", nil), linkedFile(5, "/data/.migrate-deleted-5", nil),
	}
	write(t, dir, filesName, file(filesMagic, files...))
	write(t, dir, remapName, file(remapMagic, remap(2, 3, typeLinked), remap(6, 4, 1), remap(7, 5, typeLinked)))
	if got, err := LinkRemaps(dir); err != nil || !slices.Equal(got, []string{"/data/link_remap.3"}) {
		t.Errorf("got %v, %v", got, err)
	}
	write(t, dir, remapName, file(remapMagic, protowire.AppendTag(nil, remapTo, protowire.BytesType)))
	if _, err := LinkRemaps(dir); err == nil {
		t.Error("a damaged image is no error")
	}
}
