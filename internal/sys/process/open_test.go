package process

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

func TestMappingsAreLinesOfMaps(t *testing.T) {
	for line, want := range map[string]Mapping{
		"00400000-00500000 r-xp 00001000 fe:00 123                        /bin/a b": {"400000-500000", "r-xp", "fe:00", 123, "/bin/a b"},
		"00000000-00001000 rw-s 00000000 00:01 1027 /memfd:cache (deleted)":         {"0-1000", "rw-s", "00:01", 1027, "/memfd:cache (deleted)"},
		"7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ":                          {"7f0000000000-7f0000001000", "rw-p", "00:00", 0, ""},
		"7f0000000000-7f0000001000 ---p 00000000 00:00 0":                           {"7f0000000000-7f0000001000", "---p", "00:00", 0, ""},
	} {
		var m Mapping
		if !m.parse(line) || m != want {
			t.Errorf("%q is read as %+v", line, m)
		}
	}
	for _, line := range []string{"", "00400000-00500000", "0-1 rw 0 0:0 1 x", "0-1 rw-p 0 0:0 x"} {
		if new(Mapping).parse(line) {
			t.Errorf("%q is taken", line)
		}
	}
}

func TestMappingsAndDescriptorsOfAProcess(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/mapped")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	memory, err := syscall.Mmap(int(file.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(memory) }()
	found := 0
	err = Mappings(os.Getpid(), func(m *Mapping) error {
		if m.Name != file.Name() {
			return nil
		}
		found++
		if _, err := os.Lstat(fmt.Sprintf("/proc/self/map_files/%s", m.Area)); err != nil || !m.Writable() || !m.Shared() {
			t.Errorf("%+v: %v", m, err)
		}
		return nil
	})
	if err != nil || found != 1 {
		t.Errorf("found %d times: %v", found, err)
	}
	numbers, err := Descriptors(os.Getpid())
	if err != nil || !slices.Contains(numbers, strconv.Itoa(int(file.Fd()))) {
		t.Errorf("descriptors: %v, %v", numbers, err)
	}
	const nobody = 1<<22 + 1 // above any pid
	_, err = Descriptors(nobody)
	if err == nil || Gone(err) != nil || Gone(Mappings(nobody, nil)) != nil {
		t.Errorf("of no process: %v", err)
	}
	if !errors.Is(Gone(os.ErrPermission), os.ErrPermission) {
		t.Error("any error is forgiven")
	}
}
