package monitor

import (
	"bytes"
	"testing"
)

// FuzzFrame: a client of attach sends anything. A frame that is taken is what was sent, and no longer than a frame may be.
func FuzzFrame(f *testing.F) {
	var b bytes.Buffer
	for _, one := range []frame{{frameInput, []byte("ls\n")}, {frameSize, []byte{0, 24, 0, 80}}, {frameExit, nil}} {
		b.Reset()
		if err := one.writeTo(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(b.Bytes()))
	}
	f.Add([]byte{frameInput, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, sent []byte) {
		got, err := readFrame(bytes.NewReader(sent))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := got.writeTo(&again); err != nil || !bytes.HasPrefix(sent, again.Bytes()) || len(got.payload) > maxFrame {
			t.Errorf("%x is read as %c %x, %v", sent, got.kind, got.payload, err)
		}
	})
}

// FuzzRequest: a request of another version is none.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"version":1,"op":"attach"}`))
	f.Add([]byte(`{"version":99,"op":"drain","to":"x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := parseRequest(line); err == nil && r.Version != controlVersion {
			t.Errorf("%q is taken: %+v", line, r)
		}
	})
}
