package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/livemigrate/migrate/internal/testutil"
)

// Engines keep what they have loaded by digest: the same programs must make the same image.
func TestSameProgramsMakeSameImage(t *testing.T) {
	testutil.Command(t, "busybox")
	testutil.Command(t, "redis-server")
	for name, write := range map[string]func(string) error{Busybox: WriteBusybox, Redis: WriteRedis} {
		t.Run(name, func(t *testing.T) {
			var archives [2][]byte
			for i := range archives {
				file := filepath.Join(t.TempDir(), "image.tar")
				if err := write(file); err != nil {
					t.Fatal(err)
				}
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				archives[i] = data
			}
			if !bytes.Equal(archives[0], archives[1]) {
				t.Error("two archives differ")
			}
		})
	}
}
