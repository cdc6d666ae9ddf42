package track

import (
	"context"
	"os"
	"testing"
	"time"
)

// An address space has gaps of terabytes between its areas: without PAGEMAP_SCAN they are stepped over.
func TestPlainPageMapIsReadWhereThereAreAreas(t *testing.T) {
	a, err := readAreas(&task{pid: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	l := &lister{}
	m, err := l.open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		f, err := everything{}.look(l, m, a, false)
		if err == nil && len(f.populated) == 0 {
			t.Error("this process has no memory")
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("the gaps are read too")
	}
}
