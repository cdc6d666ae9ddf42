package keeper

import (
	"log/slog"

	"github.com/livemigrate/migrate/internal/sys/process"
)

// leaveCgroups: what ends the session or the service that push or serve ran in is not to end a move.
func leaveCgroups(log *slog.Logger) {
	if err := process.LeaveCgroups(); err != nil {
		log.Debug("leave cgroups", "error", err)
	}
}
