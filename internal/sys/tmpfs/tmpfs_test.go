package tmpfs_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/tmpfs"
	"github.com/livemigrate/migrate/internal/testutil"
)

// fill makes one of everything.
const fill = `cd "$1"
mkdir -p a/b; echo text >a/b/file; chmod 4755 a/b/file; chown 12:34 a; chmod 1777 .
ln a/b/file a/second; ln -s ../nowhere a/link; mknod null c 1 3; chmod 666 null; mkfifo fifo
truncate -s 1M sparse; printf x | dd of=sparse bs=1 seek=500000 conv=notrunc status=none
latin=$(printf 'caf\351'); echo latin >"$latin"; ln -s "$latin" "$latin-link"; echo other >"$(printf 'caf\352')"
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
	_, had, err := tmpfs.Look(os.Getpid(), from)
	if err != nil {
		t.Fatal(err)
	}
	took, err := tmpfs.Unpack(to, bufio.NewReader(bytes.NewReader(packed.Bytes())), had)
	if err != nil {
		t.Fatal(err)
	}
	if err := tmpfs.Finish(to); err != nil {
		t.Fatal(err)
	}
	if took <= 0 || took > had {
		t.Errorf("took %d of %d", took, had)
	}
	run(t, `cd "$1"; echo x >null`, to)
	if got := run(t, list, to); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	cut := packed.Bytes()[:packed.Len()-20]
	if _, err := tmpfs.Unpack(mount(t, ""), bufio.NewReader(bytes.NewReader(cut)), had); !errors.Is(err, tmpfs.ErrMalformed) {
		t.Errorf("cut short: %v", err)
	}
	if _, err := tmpfs.Unpack(mount(t, ""), bufio.NewReader(bytes.NewReader(packed.Bytes())), took-1); !errors.Is(err, tmpfs.ErrTooMuch) {
		t.Errorf("with less room: %v", err)
	}
}

// pack packs a directory.
func pack(t *testing.T, dir string) *bytes.Buffer {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var packed bytes.Buffer
	if err := tmpfs.Pack(root, &packed); err != nil {
		t.Fatal(err)
	}
	return &packed
}

// A file with every other page has more extents than a line.
func TestManyHolesArrive(t *testing.T) {
	testutil.Root(t)
	from, to := mount(t, ""), mount(t, "")
	f, err := os.Create(filepath.Join(from, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range int64(5000) {
		if _, err := f.WriteAt([]byte{1, byte(i), byte(i >> 8)}, i*8192); err != nil {
			t.Fatal(err)
		}
	}
	packed := pack(t, from)
	_, had, err := tmpfs.Look(os.Getpid(), from)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tmpfs.Unpack(to, bufio.NewReader(packed), had); err != nil {
		t.Fatal(err)
	}
	const script = `cd "$1"; sha256sum holes; du -k holes`
	if got, want := run(t, script, to), run(t, script, from); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// line is the entry of a name, and the rest of it.
func line(name, rest string) string {
	return fmt.Sprintf(`{"name":%q%s}`+"\n", base64.StdEncoding.EncodeToString([]byte(name)), rest)
}

func link(to string) string {
	return fmt.Sprintf(`,"link":%q`, base64.StdEncoding.EncodeToString([]byte(to)))
}

func TestHostileNamesAndSizesAreRefused(t *testing.T) {
	testutil.Root(t)
	const file, fifo, device, symlink = `,"mode":32768`, `,"mode":4096`, `,"mode":8192,"device":1280`, `,"mode":41471`
	for what, lines := range map[string]string{
		"above":           line("../out", file),
		"absolute":        line("/tmp/out-of-tmpfs", file),
		"over a link":     line("up", symlink+link("/")) + line("up/out-of-tmpfs", file),
		"a name of ours":  line("x", `,"hard":true`+link("../../../etc/passwd")),
		"in a pipe":       line("d", fifo) + line("d/x", file),
		"in a device":     line("d", device) + line("d/x", file),
		"time of a pipe":  line("d", `,"mode":16384`) + line("d", fifo),
		"far extent":      line("x", file+`,"size":1,"extents":[[9223372036854775807,1]]`),
		"long extent":     line("x", file+`,"size":4096,"extents":[[4096,9223372036854775807]]`),
		"negative extent": line("x", file+`,"size":4096,"extents":[[-1,1]]`),
		"empty extent":    line("x", file+`,"size":4096,"extents":[[0,0]]`),
		"too much":        line("x", file+`,"size":1099511627776,"extents":[[0,1099511627776]]`),
		"too many":        line("x", file+`,"size":1048576,"extents":[`+strings.Repeat("[4095,2],", 8)+`[4095,2]]`) + strings.Repeat("x", 100),
	} {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			done := make(chan error, 1)
			at := mount(t, "")
			go func() {
				_, err := tmpfs.Unpack(at, bufio.NewReader(strings.NewReader(lines+`{"last":true}`+"\n")), 1<<16)
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("%s was made", lines)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s: hangs", lines)
			}
		})
	}
}

// Save finds the mounts where the process sees them, and Restore makes them where it is told.
func TestASetOfMounts(t *testing.T) {
	testutil.Root(t)
	images, jail := t.TempDir(), t.TempDir()
	shm := filepath.Join(jail, "shm")
	if err := os.Mkdir(shm, 0o755); err != nil {
		t.Fatal(err)
	}
	mountOn(t, shm, "size=1m")
	if err := os.WriteFile(filepath.Join(shm, "file"), []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	process := exec.CommandContext(t.Context(), "sleep", "60")
	process.SysProcAttr = &syscall.SysProcAttr{Chroot: jail}
	binary, err := exec.LookPath("busybox")
	testutil.Need(t, err == nil, "busybox, linked statically")
	run(t, `cp `+binary+` "$1"/sleep`, jail)
	process.Path = "/sleep"
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = process.Process.Kill(), process.Wait() })
	device, _, err := tmpfs.Look(process.Process.Pid, "/shm")
	if err != nil {
		t.Fatal(err)
	}
	placed := tmpfs.Placed{Path: []byte("/shm"), Source: []byte("m\xff"), Options: "size=1024k", Sealed: true, Device: device}
	for range 2 { // an older file does not matter
		if err := tmpfs.Save(images, process.Process.Pid, []tmpfs.Placed{placed}); err != nil {
			t.Fatal(err)
		}
	}
	to := t.TempDir()
	t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
	err = tmpfs.Restore(images, func(m tmpfs.Placed) (string, error) {
		if string(m.Path) != "/shm" {
			t.Errorf("path %q", m.Path)
		}
		return to, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "file")); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.WriteFile(filepath.Join(to, "file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	placed.Device++
	if err := tmpfs.Save(images, process.Process.Pid, []tmpfs.Placed{placed}); !errors.Is(err, tmpfs.ErrOther) {
		t.Errorf("another file system: %v", err)
	}
	if err := os.WriteFile(filepath.Join(images, tmpfs.SetName), make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tmpfs.Restore(images, nil); !errors.Is(err, tmpfs.ErrMalformed) {
		t.Errorf("a line without an end: %v", err)
	}
}

func TestNobodyKnowsHowMuchIsInOneWithoutASize(t *testing.T) {
	testutil.Root(t)
	if _, size, err := tmpfs.Look(os.Getpid(), mount(t, "size=0")); err != nil || size != math.MaxInt64 {
		t.Errorf("%d, %v", size, err)
	}
	at := mount(t, "size=1m")
	if err := os.WriteFile(filepath.Join(at, "file"), make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, size, err := tmpfs.Look(os.Getpid(), at); err != nil || size != 2*4096+2*1024 {
		t.Errorf("%d, %v", size, err)
	}
}

func TestUnknownOptionsAreRefused(t *testing.T) {
	if got, err := tmpfs.CheckOptions("rw,size=64k,mode=755"); err != nil || got != "size=64k,mode=755" {
		t.Errorf("%q, %v", got, err)
	}
	for _, unknown := range []string{"rw,seclabel", "huge=always"} {
		if _, err := tmpfs.CheckOptions(unknown); !errors.Is(err, tmpfs.ErrOptions) {
			t.Errorf("%s: %v", unknown, err)
		}
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
