package seqpacket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (*Conn, *os.File) {
	t.Helper()
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func TestMessagesLargerThanAnyBufferArriveWhole(t *testing.T) {
	ours, theirs := pair(t)
	for _, size := range []int{1, 8 << 10, 100 << 10} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := theirs.Write(want); err != nil {
			t.Fatal(err)
		}
		got, files, err := ours.Recv(t.Context())
		if err != nil || len(files) != 0 || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: got %d, %d files, %v", size, len(got), len(files), err)
		}
		if err := ours.Send(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		back := make([]byte, size+1)
		if n, err := theirs.Read(back); err != nil || n != size {
			t.Fatalf("peer read %d, %v", n, err)
		}
	}
}

func TestDescriptorsArriveWithTheirMessage(t *testing.T) {
	ours, theirs := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	conn, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte("pty"), unix.UnixRights(int(w.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	_, files, err := ours.Recv(t.Context())
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	if flags, err := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("a received descriptor leaks into children: flags %x, %v", flags, err)
	}
	if _, err := files[0].Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "x" {
		t.Errorf("through the descriptor: %q, %v", got, err)
	}
}

func TestRecvEndsWithTheContextAndWithThePeer(t *testing.T) {
	ours, theirs := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := ours.Recv(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := theirs.Write([]byte("later")); err != nil {
		t.Fatal(err)
	}
	if got, _, err := ours.Recv(t.Context()); err != nil || string(got) != "later" {
		t.Errorf("after a cancelled call: %q, %v", got, err)
	}
	theirs.Close()
	if _, _, err := ours.Recv(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("peer gone: %v", err)
	}
}
