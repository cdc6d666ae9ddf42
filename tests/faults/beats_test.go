package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// What the whole table rests on: a second living copy is seen, and files that only travel are none.
func TestASecondCopyIsSeen(t *testing.T) {
	dir := t.TempDir()
	w := &beats{files: [2]string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}}
	for i, step := range []struct {
		a, b uint64
		two  bool
	}{
		{10, 0, false},  // A runs
		{20, 15, false}, // its file has gone to B
		{25, 25, false}, // once more, frozen
		{25, 26, false}, // B runs
		{25, 90, false},
		{26, 90, true}, // and A
	} {
		for file, beat := range map[string]uint64{w.files[0]: step.a, w.files[1]: step.b} {
			if err := os.WriteFile(file, binary.NativeEndian.AppendUint64(nil, beat), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.look()
		if w.two() != step.two {
			t.Errorf("step %d: two copies: %v", i, w.two())
		}
	}
}
