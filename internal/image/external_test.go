package image

import (
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/regfile"
	remap_file_path "github.com/checkpoint-restore/go-criu/v7/crit/images/remap-file-path"
	"google.golang.org/protobuf/proto"
)

func regularRecord(t *testing.T, id uint32, name string, external bool) []byte {
	t.Helper()
	f := &fdinfo.FileEntry{Type: fdinfo.FdTypes_REG.Enum(), Id: &id, Reg: &regfile.RegFileEntry{
		Id: &id, Flags: proto.Uint32(2), Pos: proto.Uint64(77), Name: &name, Size: proto.Uint64(1 << 33), Mode: proto.Uint32(0o100600),
		Fown: &fown.FownEntry{Uid: proto.Uint32(1), Euid: proto.Uint32(2), Signum: proto.Uint32(3), PidType: proto.Uint32(4), Pid: proto.Uint32(5)},
	}}
	if external {
		f.Reg.Ext = proto.Bool(true)
	} else {
		f.Reg.MntId = proto.Int32(12)
	}
	record, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// External files become what CRIU makes of files that it has linked itself; the others stay as they are.
func TestRelink(t *testing.T) {
	dir := t.TempDir()
	others := [][]byte{regularRecord(t, 1, "/etc/passwd", false), socketRecord(t, 9, 1, "10.0.0.5:6379", "10.0.0.9:1000")}
	write(t, dir, filesName, file(filesMagic, others[0], regularRecord(t, 2, "file[1f:abc]", true), others[1], regularRecord(t, 5, "file[1f:abc]", true)))
	external, err := ExternalFiles(dir)
	if err != nil || len(external) != 2 || external[0] != (ExternalFile{2, 0x1f, 0xabc}) || external[1] != (ExternalFile{5, 0x1f, 0xabc}) {
		t.Fatalf("external are %+v, %v", external, err)
	}
	if err := Relink(dir, []Relinked{{external[0], "/data/gone", "/data/.a"}, {external[1], "/data/gone", "/data/.b"}}); err != nil {
		t.Fatal(err)
	}
	records, err := readRecords(dir, filesName, filesMagic)
	if err != nil || len(records) != 6 || string(records[0]) != string(others[0]) || string(records[2]) != string(others[1]) {
		t.Fatalf("%d records, %v", len(records), err)
	}
	entry := func(record []byte) *regfile.RegFileEntry {
		var f fdinfo.FileEntry
		if err := proto.Unmarshal(record, &f); err != nil || f.GetType() != fdinfo.FdTypes_REG || f.GetId() != f.GetReg().GetId() {
			t.Fatalf("%v, %v", &f, err)
		}
		return f.GetReg()
	}
	for i, at := range []int{1, 3} {
		want := entry(regularRecord(t, external[i].ID, "/data/gone", false))
		want.MntId = proto.Int32(0x1f)
		if got := entry(records[at]); !proto.Equal(got, want) {
			t.Errorf("file %d is %v, want %v", external[i].ID, got, want)
		}
		link := &regfile.RegFileEntry{
			Id: proto.Uint32(uint32(10 + i)), Flags: proto.Uint32(0), Pos: proto.Uint64(0), Fown: want.GetFown(), Name: proto.String([]string{"/data/.a", "/data/.b"}[i]),
		}
		if got := entry(records[4+i]); !proto.Equal(got, link) {
			t.Errorf("its name is %v, want %v", got, link)
		}
	}
	remaps, err := readRecords(dir, remapName, remapMagic)
	if err != nil || len(remaps) != 2 {
		t.Fatalf("%d remaps, %v", len(remaps), err)
	}
	for i, record := range remaps {
		var got remap_file_path.RemapFilePathEntry
		want := &remap_file_path.RemapFilePathEntry{OrigId: &external[i].ID, RemapId: proto.Uint32(uint32(10 + i)), RemapType: remap_file_path.RemapType_LINKED.Enum()}
		if err := proto.Unmarshal(record, &got); err != nil || !proto.Equal(&got, want) {
			t.Errorf("remap %v, want %v, %v", &got, want, err)
		}
	}
	if external, err := ExternalFiles(dir); err != nil || len(external) > 0 {
		t.Errorf("external still: %v, %v", external, err)
	}
	if err := Relink(dir, []Relinked{{ExternalFile{ID: 77}, "/x", "/y"}}); err == nil {
		t.Error("a file is relinked that is not there")
	}
}

// What CRIU has copied is known by the head of each file, however much comes behind it.
func TestGhosts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "ghost-file-1.img", append(file(ghostMagic, message(1, 0, 2, 0, 3, 0o100600, ghostDevice, 0x800001, ghostInode, 77)), "content"...))
	write(t, dir, "ghost-file-2.img", file(ghostMagic, message(1, 0, 2, 0, 3, 0o100600, ghostDevice, 0x900001, ghostInode, 78)))
	ghosts, err := Ghosts(dir)
	if err != nil || len(ghosts) != 2 || !ghosts[[2]uint64{0x800001, 77}] || !ghosts[[2]uint64{0x900001, 78}] {
		t.Errorf("%v, %v", ghosts, err)
	}
	write(t, dir, "ghost-file-2.img", []byte("nothing of the kind"))
	if _, err := Ghosts(dir); err == nil {
		t.Error("a damaged image is taken for one")
	}
}
