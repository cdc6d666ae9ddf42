package preflight

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/testutil"
)

// A shell uses one number for a file and for a pipe by turns. What is said of it is true of one of them.
func TestDescriptorThatChangesIsOneThing(t *testing.T) {
	testutil.Root(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	number, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(number)
	remote, err := descriptor.OpenRemote(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), number)
	still, ok := readDescriptor(path, number, remote)
	if !ok || still.link != file.Name() || still.mount == "" || still.mode != syscall.S_IFREG {
		t.Fatalf("the file is %+v, %t", still, ok)
	}

	enough := make(chan struct{})
	var shell sync.WaitGroup
	shell.Go(func() {
		for {
			select {
			case <-enough:
				return
			default:
				_ = syscall.Dup3(int(w.Fd()), number, syscall.O_CLOEXEC)
				_ = syscall.Dup3(int(file.Fd()), number, syscall.O_CLOEXEC)
			}
		}
	})
	defer shell.Wait()
	defer close(enough)
	for range 5000 {
		d, ok := readDescriptor(path, number, remote)
		switch {
		case !ok:
			t.Fatal("it was never closed")
		case hasPath(d.link) && (d.link != still.link || d.mount != still.mount || d.mode != still.mode):
			t.Fatalf("the file is %+v", d)
		case !hasPath(d.link) && (!strings.HasPrefix(d.link, "pipe:") || d.mount != ""):
			t.Fatalf("the pipe is %+v", d)
		}
	}
}
