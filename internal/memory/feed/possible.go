package feed

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/livemigrate/migrate/internal/sys/uffd"
)

// ErrImpossible: this host cannot give processes their memory later. The text says why, and the cure if there is one.
var ErrImpossible = errors.New("memory cannot come later here")

// Possible tells whether this host could feed a container: CRIU makes the userfaultfds as the root of its user namespace,
// when it has one.
func Possible(userNamespace bool) error {
	fd, err := uffd.Open(syscall.O_CLOEXEC | syscall.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImpossible, err)
	}
	if err := fd.Close(); err != nil || !userNamespace {
		return err
	}
	const path = "/proc/sys/vm/unprivileged_userfaultfd"
	allowed, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(allowed)) != "1" {
		return fmt.Errorf("%w: for a container in a user namespace set the sysctl vm.unprivileged_userfaultfd to 1", ErrImpossible)
	}
	return nil
}
