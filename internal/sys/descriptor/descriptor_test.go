package descriptor_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livemigrate/migrate/internal/sys/descriptor"
)

func TestSentFileIsTheSameOnTheOtherSide(t *testing.T) {
	here, there := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := descriptor.Send(here, w, "/dev/pts/7"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	got, text, err := descriptor.Receive(there)
	if err != nil {
		t.Fatal(err)
	}
	if text != "/dev/pts/7" || got.Name() != text {
		t.Errorf("the text is %q, the name %q", text, got.Name())
	}
	if _, err := got.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	got.Close()
	if all, err := io.ReadAll(r); err != nil || string(all) != "hello" {
		t.Errorf("read %q, %v", all, err)
	}
}

func TestReceiveRefusesAMessageWithoutAFile(t *testing.T) {
	here, there := pair(t)
	if _, err := here.Write([]byte("just text")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := descriptor.Receive(there); err == nil || !strings.Contains(err.Error(), "0 descriptors") {
		t.Errorf("got %v", err)
	}
}

func TestChildHasOnlyWhatItInherits(t *testing.T) {
	kept, withheld := null(t), null(t)
	fd, err := descriptor.Inherit(kept)
	if err != nil {
		t.Fatal(err)
	}
	other, err := descriptor.Inherit(withheld)
	if err != nil {
		t.Fatal(err)
	}
	if err := descriptor.Withhold(other); err != nil {
		t.Fatal(err)
	}
	script := `test -e /proc/self/fd/$0 && ! test -e /proc/self/fd/$1`
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script, strconv.Itoa(fd), strconv.Itoa(other)).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestChildHasNothingOfWhatIsWithheld(t *testing.T) {
	given := null(t)
	left, err := descriptor.Inherit(null(t)) // not 3: there is given
	if err != nil {
		t.Fatal(err)
	}
	if err := descriptor.WithholdFrom(3); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `test -e /proc/self/fd/3 && ! test -e /proc/self/fd/$0`, strconv.Itoa(left))
	cmd.ExtraFiles = []*os.File{given}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPollableReadObeysItsDeadline(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := descriptor.Block(r); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := syscall.Dup(int(r.Fd())) // as if it came through an exec: no file of this program owns it
	if err != nil {
		t.Fatal(err)
	}
	pollable, err := descriptor.Pollable(fd, "pipe")
	if err != nil {
		t.Fatal(err)
	}
	defer pollable.Close()
	if err := pollable.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := pollable.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("got %v", err)
	}
}

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socketpair")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns[i] = conn.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

func null(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
