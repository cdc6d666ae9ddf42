// Package buildah runs Debian's buildah with migrate in runc's place: what builds run is run by it.
//
// SANDBOX_RUNTIME names another runtime: where a test fails with that one too, it is not migrate's fault.
package buildah

import (
	"path/filepath"
	"testing"

	"github.com/livemigrate/migrate/tests/engines/image"
	"github.com/livemigrate/migrate/tests/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.Main(m, func(dir string) error { return image.WriteBusybox(filepath.Join(dir, "busybox.tar")) })
}
