package tmpfs_test

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/tmpfs"
	"github.com/livemigrate/migrate/internal/testutil"
)

// FuzzUnpack: whatever a peer packs, nothing is made beside the mount, and no more than the limit.
func FuzzUnpack(f *testing.F) {
	testutil.Root(f)
	const limit, file, directory, symlink = 1 << 16, `,"mode":33188`, `,"mode":16877`, `,"mode":41471`
	for _, lines := range []string{
		line(".", directory) + line("a", directory) + line("a/b", file+`,"size":3,"extents":[[0,3]]`) + "abc" + line("c", `,"hard":true`+link("a/b")),
		line("x", file+`,"size":9000,"extents":[[0,1]],"more":true`) + "a" + `{"extents":[[8999,1]]}` + "\nb" + line("l", symlink+link("../outside")),
		line("l", symlink+link("../outside")) + line("l/x", file) + line("../outside/x", file) + line("h", `,"hard":true`+link("../outside/victim")),
		line("p", `,"mode":4516`) + line("d", `,"mode":8630,"device":259,"uid":1,"gid":2,"mtime":-5`),
	} {
		f.Add([]byte(lines + `{"last":true}` + "\n"))
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		top := t.TempDir()
		root, victim := filepath.Join(top, "root"), filepath.Join(top, "outside", "victim")
		for _, dir := range []string{root, filepath.Dir(victim)} {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := state(t, top, victim)
		taken, err := tmpfs.Unpack(root, bufio.NewReader(bytes.NewReader(packed)), limit)
		if taken < 0 || taken > limit || err != nil && taken != 0 {
			t.Errorf("%d bytes of %d, %v", taken, limit, err)
		}
		if after := state(t, top, victim); after != before {
			t.Errorf("outside was %v, is %v", before, after)
		}
	})
}

// outside is what is beside the mount.
type outside struct {
	beside, behind int
	mode           os.FileMode
	content        string
}

func state(t *testing.T, top, victim string) (o outside) {
	t.Helper()
	beside, err := os.ReadDir(top)
	if err != nil {
		t.Fatal(err)
	}
	behind, err := os.ReadDir(filepath.Dir(victim))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(victim)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	return outside{beside: len(beside), behind: len(behind), mode: info.Mode(), content: string(content)}
}
