package image

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/livemigrate/migrate/internal/memory"
)

// A parent that claims to have every page: a dump on top of it, with track_mem, records a clean page as PageParent and
// neither reads nor copies it. Such a dump is nothing until Resolve has taken the claims out of it.
//
//	claims/inventory.img      version and the time of the "dump"
//	claims/pagemap-VPID.img   16 runs that cover all addresses; there is no page file
//
// CRIU wants the time to be after the start of every process ("pid reuse" otherwise), and a map for each: a process
// without one is dumped in full, silently.

// claimAhead is how much later than now the claim is dated: no process of the container may be born after it.
const claimAhead = 24 * time.Hour

// WriteClaims makes dir with an inventory. uptime is the system's, of /proc/uptime.
func WriteClaims(dir string, uptime time.Duration) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("claim pages: %w", err)
	}
	const version, dumpUptime = 1, 8 // fields of images/inventory.proto
	record := protowire.AppendVarint(protowire.AppendTag(nil, version, protowire.VarintType), imgVersion)
	record = protowire.AppendTag(record, dumpUptime, protowire.VarintType)
	record = protowire.AppendVarint(record, uint64((uptime + claimAhead).Microseconds()))
	file := appendRecord(binary.LittleEndian.AppendUint32(nil, inventoryMagic), record)
	if err := os.WriteFile(filepath.Join(dir, inventoryName), file, 0o600); err != nil {
		return fmt.Errorf("claim pages: %w", err)
	}
	return nil
}

// Claim says in dir, which WriteClaims made, that all pages of these processes are there.
func Claim(dir string, vpids []int) error {
	m := &PageMap{PagesID: 1, narrow: true}
	// 8 TiB each: the field of CRIU up to 4.1 has 32 bits.
	const runs, pages = 16, 1 << 31
	for i := range uint64(runs) {
		m.Runs = append(m.Runs, PageRun{memory.Range{Start: i * pages * memory.PageSize, Pages: pages}, PagePresent})
	}
	file := m.encode()
	for _, vpid := range vpids {
		name := fmt.Sprintf("pagemap-%d.img", vpid)
		if err := os.WriteFile(filepath.Join(dir, name), file, 0o600); err != nil {
			return fmt.Errorf("claim pages: %w", err)
		}
	}
	return nil
}
