package launch

import (
	"log/slog"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/livemigrate/migrate/runtime/internal/bootstrap"
	"github.com/livemigrate/migrate/runtime/internal/handshake"
)

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A daemon that makes containers by the library would run out of descriptors.
func TestProcessThatCannotBeStartedLeavesNoDescriptors(t *testing.T) {
	process := &specs.Process{Terminal: true} // without a console socket
	try := func() {
		s := &starter{
			message: &bootstrap.Message{}, config: &handshake.Config{Process: process}, log: slog.New(slog.DiscardHandler),
		}
		if _, err := s.fork(); err == nil {
			t.Fatal("it was started")
		}
	}
	try() // what is opened once, is open
	before := openFiles(t)
	for range 10 {
		try()
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors are open, before there were %d", after, before)
	}
}
