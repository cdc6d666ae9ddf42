package bootstrap_test

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/runtime/internal/bootstrap"
)

// send starts this test binary with a bootstrap socket, gives it data as the message and returns the stage's error.
func send(t *testing.T, data []byte) error {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{"stage", "-test.run=^$"}, &os.ProcAttr{
		Env: []string{bootstrap.EnvFD + "=3"}, Files: []*os.File{nil, nil, nil, theirs},
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	_, _ = ours.Write(data)
	_ = unix.Shutdown(fds[0], unix.SHUT_WR)
	_, err = bootstrap.ReadReply(ours, slog.New(slog.DiscardHandler))
	_, _ = p.Wait()
	return err
}

func TestStageRefusesBrokenMessages(t *testing.T) {
	good, err := (&bootstrap.Message{Namespaces: []bootstrap.Namespace{{Type: "net", Path: "/proc/self/ns/none"}}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, value uint16) []byte {
		data := append([]byte{}, good...)
		binary.NativeEndian.PutUint16(data[at:], value)
		return data
	}
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "read bootstrap message"},
		{"cut", good[:len(good)-1], "read bootstrap message"},
		{"header alone", good[:16], "read bootstrap message"},
		{"type", change(4, 1), "bad header"},
		{"length below the header", change(0, 3), "bad header"},
		{"attribute longer than the message", change(16, 60000), "has a length of 60000"},
		{"attribute shorter than its header", change(16, 2), "has a length of 2"},
		{"unknown attribute", change(18, 99), "unknown attribute 99"},
		{"number of a wrong size", change(16, 6), "number of 2 bytes"},
		{"text without an end", change(26, 8), "text without an end"},
		{"namespace that is not there", good, "open namespace /proc/self/ns/none"},
	}
	// The second attribute starts at byte 24; its type stands at 26. Type 8 is a text, and its last byte is made no NUL.
	tests[9].data[24+4+len("net:/proc/self/ns/none")] = 'x'
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := send(t, tt.data)
			if stage, ok := errors.AsType[*bootstrap.Error](err); !ok || !strings.Contains(stage.Text, tt.want) {
				t.Errorf("the stage said %v, want %q", err, tt.want)
			}
		})
	}
}
