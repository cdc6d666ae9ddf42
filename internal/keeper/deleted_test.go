package keeper

import (
	"log/slog"
	"testing"

	"github.com/livemigrate/migrate/internal/wire"
)

// Where as many directories travel as can, deleted files are none: they would be one more, and the peer would refuse them all.
func TestDeletedFilesAreNotOneTreeTooMany(t *testing.T) {
	c := &container{trees: make([]*tree, wire.MaxTrees), log: slog.New(slog.DiscardHandler)}
	if err := c.findDeleted(); err != nil || c.deleted != nil {
		t.Errorf("got %v, %v", c.deleted, err)
	}
}
