package sealed

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/testutil"
)

// TestMain answers when the test binary is started as its own sealed copy.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hello" {
		_, _ = os.Stdout.WriteString("hello")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSealedProgramRunsAndCannotBeWritten(t *testing.T) {
	testutil.Root(t)
	ways := map[string]func(string) (*os.File, error){"overlay": overlay, "memfd": memfd}
	for name, open := range ways {
		t.Run(name, func(t *testing.T) {
			f, err := open("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
			out, err := exec.Command(path, "hello").Output()
			if err != nil || !bytes.Equal(out, []byte("hello")) {
				t.Errorf("sealed program printed %q, %v", out, err)
			}
			for _, flags := range []int{os.O_RDWR, os.O_WRONLY | os.O_TRUNC} {
				w, err := os.OpenFile(path, flags, 0)
				if err != nil {
					continue
				}
				if _, err := w.Write([]byte{0}); err == nil {
					t.Errorf("the sealed program was written to (flags %#x)", flags)
				}
				_ = w.Close()
			}
			if err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err == nil {
				if w, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
					_ = w.Close()
					t.Error("the overlay became writable by a change of the mount")
				}
			}
		})
	}
}
