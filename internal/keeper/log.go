package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// logs is where the logs of a container's moves are, CRIU's among them: next to the journals.
func (p Places) logs(container string) string {
	return filepath.Join(filepath.Dir(p.Journals), "log", container)
}

// openLog opens the file that a keeper, which has no terminal, writes its log to.
func (p Places) openLog(name string, debug bool) (*slog.Logger, func(), error) {
	dir := p.logs("")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("open keeper's log: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open keeper's log: %w", err)
	}
	// What Go says of a panic goes there too: a keeper's standard error is /dev/null.
	if err := syscall.Dup3(int(file.Fd()), 2, 0); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open keeper's log: %w", err), file.Close())
	}
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(file, &slog.HandlerOptions{Level: level}))
	return log, func() { _ = file.Close() }, nil
}

// criuLogLevel is what CRIU writes to its log inside the freeze: the cause of a failure, and with debug all it does, which
// costs the service some milliseconds.
func criuLogLevel(debug bool) int32 {
	if debug {
		return 4
	}
	return 2
}
