// Package containerd runs Debian's containerd, its shim (io.containerd.runc.v2) and ctr with migrate in runc's place. Each
// test does what ctr's users do, and looks at what they would see.
//
// SANDBOX_RUNTIME names another runtime: where a test fails with that one too, it is not migrate's fault.
package containerd

import (
	"testing"

	"github.com/livemigrate/migrate/tests/sandbox"
)

func TestMain(m *testing.M) { sandbox.Main(m) }
