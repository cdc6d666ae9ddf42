package transport

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func FuzzFrameReader(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 'a', 'b', 'c', 2, 0, 0, 0}, false)
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0}, true)
	f.Add([]byte{0, 0xff, 0xff, 0xff}, false)
	f.Fuzz(func(t *testing.T, b []byte, control bool) {
		r := newFrameReader(bytes.NewReader(b), control)
		var again []byte
		for {
			kind, n, err := r.next()
			if err != nil {
				break
			}
			if n > r.max {
				t.Fatalf("a frame of %d bytes passes", n)
			}
			payload, err := r.payload(nil, n)
			if err != nil {
				break
			}
			var header [headerSize]byte
			putHeader(&header, kind, n)
			again = append(append(again, header[:]...), payload...)
		}
		if !bytes.HasPrefix(b, again) {
			t.Errorf("%x is read as %x", b, again)
		}
	})
}

// A length is only a claim until the bytes come: believing it would let a peer fill the memory with headers.
func TestFrameTooLargeAllocatesNothing(t *testing.T) {
	header := []byte{0, 0xff, 0xff, 0xff}
	src := bytes.NewReader(header)
	r := newFrameReader(src, false)
	allocated := testing.AllocsPerRun(100, func() {
		src.Reset(header)
		r.r.Reset(src)
		if _, _, err := r.next(); err == nil {
			t.Fatal("accepted")
		}
	})
	if allocated > 10 { // the error's text
		t.Errorf("%v allocations", allocated)
	}
}

func TestFrameIsReadIntoCallersBuffer(t *testing.T) {
	var stream bytes.Buffer
	payload, buf := make([]byte, 1000), make([]byte, 0, 1000)
	frame := append([]byte{kindData, 0, 3, 232}, payload...)
	r := newFrameReader(&stream, false)
	allocated := testing.AllocsPerRun(100, func() {
		stream.Write(frame)
		_, n, err := r.next()
		if err == nil {
			_, err = r.payload(buf, n)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
	if allocated >= 1 {
		t.Errorf("%v allocations a frame", allocated)
	}
}
