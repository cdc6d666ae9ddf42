package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/livemigrate/migrate/internal/handover"
)

// What moves of this host have taken is kept beside its journals, for the predictions of later ones. Nothing else depends on
// it: a file that is missing, damaged, or of another version is as good as an empty one.
const (
	pastFile    = "stops.json"
	pastVersion = 1
	pastMost    = 64       // the newest are kept
	pastBytes   = 64 << 10 // far above that many
)

// pastStops is the file's content.
type pastStops struct {
	Version int             `json:"version"`
	Stops   []handover.Past `json:"stops"` // the newest last
}

func (p Places) pastPath() string { return filepath.Join(filepath.Dir(p.Journals), pastFile) }

// past is what the stops before have taken.
func (p Places) past() ([]handover.Past, error) {
	file, err := os.Open(p.pastPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read past stops: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || info.Size() > pastBytes {
		return nil, errors.Join(fmt.Errorf("read %s: not what was written there", file.Name()), err)
	}
	var stops pastStops
	if err := json.NewDecoder(file).Decode(&stops); err != nil {
		return nil, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	if stops.Version != pastVersion {
		return nil, fmt.Errorf("read %s: version %d, this is %d", file.Name(), stops.Version, pastVersion)
	}
	return stops.Stops, nil
}

// remember adds a stop. Moves that end at the same time take turns, and a reader finds the file as it was or as it is.
func (p Places) remember(stop *handover.Past) error {
	dir, err := os.Open(filepath.Dir(p.pastPath()))
	if err != nil {
		return fmt.Errorf("remember the stop: %w", err)
	}
	defer func() { _ = dir.Close() }()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("remember the stop: %w", err)
	}
	past, _ := p.past() // what can't be read is begun anew
	past = append(past, *stop)
	content, err := json.Marshal(pastStops{Version: pastVersion, Stops: past[max(0, len(past)-pastMost):]})
	if err != nil {
		return fmt.Errorf("remember the stop: %w", err)
	}
	path := p.pastPath()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("remember the stop: %w", err)
	}
	return os.Rename(path+".new", path)
}
