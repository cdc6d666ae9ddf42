package pipe_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/pipe"
)

func path(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func TestPeekTakesNothing(t *testing.T) {
	for name, size := range map[string]int{"empty": 0, "a line": 5, "full": 64 << 10, "larger than a pipe is": 200 << 10} {
		t.Run(name, func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			data := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
			if err := pipe.Put(write, data); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				w, err := pipe.Peek(path(write))
				if err != nil || !bytes.Equal(w.Data, data) || w.Ended {
					t.Fatalf("found %d bytes of %d, ended %v, %v", len(w.Data), size, w.Ended, err)
				}
			}
			if n, err := pipe.Length(path(write)); n != size || err != nil {
				t.Errorf("%d bytes of %d wait, %v", n, size, err)
			}
			write.Close()
			w, err := pipe.Peek(path(read))
			if err != nil || !bytes.Equal(w.Data, data) || !w.Ended {
				t.Errorf("without a writer: found %d bytes, ended %v, %v", len(w.Data), w.Ended, err)
			}
			if left, err := io.ReadAll(read); err != nil || !bytes.Equal(left, data) {
				t.Errorf("%d bytes are left, %v", len(left), err)
			}
		})
	}
}

func TestWhatIsTakenCanBeReturned(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	for _, size := range []int{0, 100, 64 << 10, 200 << 10} {
		want := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
		if err := pipe.Put(write, want); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, err := pipe.Take(path(write))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("took %d bytes of %d, %v", len(got), size, err)
			}
			if n, err := pipe.Length(path(write)); n != 0 || err != nil {
				t.Errorf("%d bytes are left, %v", n, err)
			}
			if err := pipe.Return(path(write), got); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := pipe.Take(path(read)); err != nil {
			t.Fatal(err)
		}
	}
	if err := pipe.Return(path(write), make([]byte, 4<<20)); err == nil {
		t.Error("4 MiB fit into a pipe")
	}
}

func TestReturnWithoutAReader(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	read.Close()
	if err := pipe.Return(path(write), []byte("text")); err != nil {
		t.Fatal(err)
	}
	if got, err := pipe.Take(path(write)); string(got) != "text" || err != nil {
		t.Errorf("took %q, %v", got, err)
	}
}

func TestPeekIntoSomethingElse(t *testing.T) {
	if _, err := pipe.Peek("/dev/null"); err == nil {
		t.Error("/dev/null is a pipe")
	}
}
