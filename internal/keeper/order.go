package keeper

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/memory/pages"
	"github.com/livemigrate/migrate/transport"
)

// Order is what a source's keeper is told to do: one move.
type Order struct {
	Places

	Move           string                 `json:"move"` // first digits of the names of its moves; Start sets it
	Container      string                 `json:"container"`
	Peer           string                 `json:"peer"`
	Certificates   transport.Certificates `json:"certificates,omitzero"` // for a tls:// peer
	CRIU           string                 `json:"criu,omitempty"`
	SystemdCgroup  bool                   `json:"systemd_cgroup,omitempty"`
	Mode           handover.Mode          `json:"mode"`
	MaxDowntime    time.Duration          `json:"max_downtime"`
	MaxRounds      int                    `json:"max_rounds"`
	Converge       bool                   `json:"converge,omitempty"` // slow the container down
	Feed           bool                   `json:"feed,omitempty"`     // memory goes in pages
	Lanes          int                    `json:"lanes"`
	Compress       string                 `json:"compress,omitempty"`        // CompressAuto and so on; empty is auto
	BandwidthLimit int64                  `json:"bandwidth_limit,omitempty"` // bytes per second
	Keep           bool                   `json:"keep,omitempty"`
	Retry          time.Duration          `json:"retry"`
	Volumes        string                 `json:"volumes"`
	TCP            string                 `json:"tcp,omitempty"` // TCPEstablished or TCPClose; empty: as the address moves along or not
	Debug          bool                   `json:"debug,omitempty"`

	skipInFlight bool // connections that the program does not accept are left behind

	// Besides is the memory, in bytes, of containers that come to the peer before this one. Check alone asks for it.
	Besides uint64 `json:"-"`
}

// What becomes of TCP connections.
const (
	TCPEstablished = "established" // they go on
	TCPClose       = "close"       // they end: the program reads the end of them, and at the source their other ends are told
)

// How --volumes treats the bind mounts of a container.
const (
	VolumesCopy   = "copy"   // their contents travel
	VolumesShared = "shared" // the peer has the same ones
	VolumesRefuse = "refuse" // a container that has any stays
)

// When --compress compresses the pages that travel.
const (
	CompressAuto = "auto" // where that is faster than the link
	CompressNone = "none"
	CompressZstd = "zstd" // wherever it makes them smaller
)

// compressions are the words for what pages of memory know.
func compressions() map[string]pages.Compression {
	return map[string]pages.Compression{CompressAuto: pages.Auto, CompressNone: pages.Never, CompressZstd: pages.Always}
}

// maxOrder is far above any order; it comes from a pipe that only push holds.
const maxOrder = 1 << 20

// readOrder reads the line that push sends first.
func readOrder(r io.Reader) (*Order, error) {
	var o Order
	if err := json.NewDecoder(io.LimitReader(r, maxOrder)).Decode(&o); err != nil {
		return nil, fmt.Errorf("read order: %w", err)
	}
	return &o, nil
}
