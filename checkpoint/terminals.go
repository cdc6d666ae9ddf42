package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/sys/terminal"
	"github.com/livemigrate/migrate/runtime"
)

// terminalsFile has the terminals that block, while a container is being dumped: whoever recovers it has to know them, because
// CRIU may leave them otherwise. Most containers have none, and no such file.
const terminalsFile = "terminals.json"

func rememberTerminals(c *runtime.Container, terminals []terminal.Blocking) error {
	if len(terminals) == 0 {
		return forgetTerminals(c)
	}
	text, err := json.Marshal(terminals)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.StateDir(), terminalsFile), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember terminals: %w", err)
	}
	return nil
}

// reblockTerminals makes those that are remembered block again. The container stands still.
func reblockTerminals(c *runtime.Container) error {
	text, err := os.ReadFile(filepath.Join(c.StateDir(), terminalsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var terminals []terminal.Blocking
	if err == nil {
		err = json.Unmarshal(text, &terminals)
	}
	if err != nil {
		return fmt.Errorf("recall terminals: %w", err)
	}
	return errors.Join(terminal.Restore(terminals), forgetTerminals(c))
}

func forgetTerminals(c *runtime.Container) error {
	if err := os.Remove(filepath.Join(c.StateDir(), terminalsFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget terminals: %w", err)
	}
	return nil
}
