package keeper

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/livemigrate/migrate/internal/netspace"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/runtime"
)

// identity is what the source's runtime knows of a container beyond its config.json, and the peer's must know too.
type identity struct {
	Network   *runtime.Network `json:"network,omitempty"`
	Namespace *netspace.Record `json:"namespace,omitempty"` // its network namespace, if the peer makes it
	LogFile   string           `json:"log_file,omitempty"`  // "" without a monitor
	Input     bool             `json:"input,omitempty"`     // its standard input is a pipe
	Foreign   bool             `json:"foreign,omitempty"`   // its pipes, or its terminal, are held by whoever started it
	Notify    bool             `json:"notify,omitempty"`    // it has a NOTIFY_SOCKET of the runtime
	Created   time.Time        `json:"created"`
	Volumes   []volume         `json:"volumes,omitempty"`

	Deleted int `json:"deleted,omitempty"` // which tree is none, but the deleted files that are open; 0: there are none

	Binds []preflight.Bind `json:"binds,omitempty"` // mounts that do not travel

	NoSeccompFlags bool `json:"no_seccomp_flags,omitempty"` // of the plan: the config lost it on its way through JSON
}

// volume is a bind mount whose contents travel.
type volume struct {
	Mount int    `json:"mount"`          // index in the config's mounts
	Tree  int    `json:"tree"`           // that holds it
	Path  string `json:"path,omitempty"` // in the tree; empty: all of it
}

// stdio is what can only be known once the container stands still.
type stdio struct {
	LogOffset int64 `json:"log_offset"` // bytes that the container had written to its log, on all hosts
	// Output is in its pipes and nobody has read it; Input it has not read itself, and InputEnded tells that no more comes.
	Output     []byte `json:"output,omitempty"`
	Input      []byte `json:"input,omitempty"`
	InputEnded bool   `json:"input_ended,omitempty"`
}

func decode[T any](what string, data []byte) (*T, error) {
	value := new(T)
	if err := json.Unmarshal(data, value); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return value, nil
}
