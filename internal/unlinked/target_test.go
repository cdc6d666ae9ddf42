package unlinked

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// newTarget has one file of a size that is no limit.
func newTarget(t *testing.T) *Target {
	t.Helper()
	top := t.TempDir()
	target := NewTarget(&TargetOptions{Top: top, Root: oneRoot})
	t.Cleanup(func() { must(t, target.Close()) })
	must(t, target.apply(frameFile, &reader{rest: fileFrame()[1:]}))
	return target
}

func fileFrame() []byte {
	return encodeFile(0, 1<<32, []Place{{Mount: 1, Inode: 2, Point: "/", Path: "/x"}})
}

// A byte takes a page of the disk, and counts as one.
func TestLimitIsOfTheDisk(t *testing.T) {
	target := newTarget(t)
	target.Limit(1 << 20)
	h := &hostile{}
	for i := range uint64(1000) {
		h.frames = append(h.frames, append(numbers(frameData, 0, i<<16), 1))
	}
	came, err := target.Serve(t.Context(), h)
	st, statErr := fs.StatFile(target.files[0].file)
	must(t, statErr)
	if !errors.Is(err, ErrTooMuch) || st.Blocks*512 > 1<<20+64<<10 {
		t.Errorf("%d bytes came, %d are on the disk: %v", came, st.Blocks*512, err)
	}
}

// What is no frame that a source sends is refused.
func TestMalformedFramesAreRefused(t *testing.T) {
	more := strings.Repeat("z", 99)
	for what, frame := range map[string][]byte{
		"large data": append(numbers(frameData, 0, 0), make([]byte, blockSize+1)...),
		"file":       append(fileFrame(), more...),
		"hole":       append(numbers(frameHole, 0, 0, 4096), more...),
		"attributes": append((&attributes{size: 10, mode: 0o600}).encode(0), more...),
		"drop":       append(numbers(frameDrop, 0), more...),
	} {
		if err := newTarget(t).apply(frameKind(frame[0]), &reader{rest: frame[1:]}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A file that is open many times has as many names, and costs a descriptor.
func TestManyNamesTakeOneDirectory(t *testing.T) {
	target := newTarget(t)
	before, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for range 2000 {
		named, err := target.Name(1, 2)
		if must(t, err); named == nil {
			t.Fatal("not found")
		}
	}
	after, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	if len(after) > len(before)+4 {
		t.Errorf("%d descriptors, and %d before", len(after), len(before))
	}
	if named, err := target.Name(1, 3); named != nil || err != nil {
		t.Errorf("one that has not come: %+v, %v", named, err)
	}
}
