package tmpfs_test

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/tmpfs"
	"github.com/livemigrate/migrate/internal/testutil"
)

// fill makes one of everything.
const fill = `cd "$1"
mkdir -p a/b; echo text >a/b/file; chmod 4755 a/b/file; chown 12:34 a; chmod 1777 .
ln a/b/file a/second; ln -s ../nowhere a/link; mknod null c 1 3; chmod 666 null; mkfifo fifo
truncate -s 1M sparse; printf x | dd of=sparse bs=1 seek=500000 conv=notrunc status=none
touch -d '2001-02-03 04:05:06.789' a/b/file a fifo .; touch -h -d '2002-03-04' a/link`

// list tells all of it.
const list = `cd "$1"; find . -printf '%p %M %U %G %T@ %l %n %s\n' | sort; find . -type f -exec sha256sum {} + | sort; stat -c '%t:%T' null; du -k sparse`

func TestAllThatIsInAMountArrives(t *testing.T) {
	testutil.Root(t)
	from, to := mount(t, "size=8m,mode=700"), mount(t, "size=8m,mode=755")
	inner := filepath.Join(from, "inner")
	if err := os.Mkdir(inner, 0o711); err != nil {
		t.Fatal(err)
	}
	run(t, fill, from)
	want := run(t, list, from)
	mountOn(t, inner, "")
	if err := os.WriteFile(filepath.Join(inner, "hidden"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := tmpfs.Open(os.Getpid(), from)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var packed bytes.Buffer
	if err := tmpfs.Pack(root, &packed); err != nil {
		t.Fatal(err)
	}
	if err := tmpfs.Unpack(to, bufio.NewReader(bytes.NewReader(packed.Bytes()))); err != nil {
		t.Fatal(err)
	}
	if got := run(t, list, to); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	cut := packed.Bytes()[:packed.Len()-20]
	if err := tmpfs.Unpack(mount(t, ""), bufio.NewReader(bytes.NewReader(cut))); !errors.Is(err, tmpfs.ErrMalformed) {
		t.Errorf("cut short: %v", err)
	}
}

func TestNamesStayInside(t *testing.T) {
	testutil.Root(t)
	for _, names := range []string{
		`{"name":"../out","mode":32768}`,
		`{"name":"/tmp/out-of-tmpfs","mode":32768}`,
		`{"name":"up","mode":41471,"link":"/"}` + "\n" + `{"name":"up/out-of-tmpfs","mode":32768}`,
		`{"name":"x","hard":true,"link":"../../../etc/passwd"}`,
	} {
		if err := tmpfs.Unpack(mount(t, ""), bufio.NewReader(strings.NewReader(names+"\n"+`{"last":true}`+"\n"))); err == nil {
			t.Errorf("%s was made", names)
		}
	}
}

func TestUnknownOptionsAreRefused(t *testing.T) {
	if got, err := tmpfs.CheckOptions("rw,size=64k,mode=755"); err != nil || got != "size=64k,mode=755" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := tmpfs.CheckOptions("rw,seclabel"); !errors.Is(err, tmpfs.ErrOptions) {
		t.Errorf("seclabel: %v", err)
	}
}

func mount(t *testing.T, options string) string {
	dir := t.TempDir()
	mountOn(t, dir, options)
	return dir
}

func mountOn(t *testing.T, dir, options string) {
	if err := tmpfs.Mount("tmpfs", dir, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

func run(t *testing.T, script, dir string) string {
	out, err := exec.CommandContext(t.Context(), "sh", "-ec", script, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return string(out)
}
