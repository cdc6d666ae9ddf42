package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	if err := writeInventory(dir, uptime+claimAhead); err != nil {
		return fmt.Errorf("claim pages: %w", err)
	}
	return nil
}

// writeInventory says of a directory of pages when they were dumped.
func writeInventory(dir string, uptime time.Duration) error {
	const version, dumpUptime = 1, 8 // fields of images/inventory.proto
	record := protowire.AppendVarint(protowire.AppendTag(nil, version, protowire.VarintType), imgVersion)
	record = protowire.AppendTag(record, dumpUptime, protowire.VarintType)
	record = protowire.AppendVarint(record, uint64(uptime.Microseconds()))
	file := appendRecord(binary.LittleEndian.AppendUint32(nil, inventoryMagic), record)
	return os.WriteFile(filepath.Join(dir, inventoryName), file, 0o600)
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

// WritePreDump makes a pre-dump in dir of which everything is Left: Fill or FillOver ends it. uptime is the system's.
func WritePreDump(dir string, uptime time.Duration, memories map[int][]memory.Range) error {
	for i, vpid := range slices.Sorted(maps.Keys(memories)) {
		m := &PageMap{VPid: vpid, PagesID: uint32(i + 1), narrow: true}
		for _, r := range memories[vpid] {
			m.add(r, PageLazy)
		}
		err := os.WriteFile(filepath.Join(dir, pagesName(m.PagesID)), nil, 0o600)
		if err = errors.Join(err, m.Write(dir)); err != nil {
			return fmt.Errorf("write pre-dump: %w", err)
		}
	}
	if err := writeInventory(dir, uptime); err != nil {
		return fmt.Errorf("write pre-dump: %w", err)
	}
	return nil
}
