package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/preflight"
	"github.com/livemigrate/migrate/internal/sys/process"
)

// errCrowded: fed, the container would need more memory than it may have, and be killed for it.
var errCrowded = errors.New("its processes share memory since a fork, and each would get its own")

// charges are what the container's cgroup is charged with, in bytes.
type charges struct {
	preflight.Usage
	limit uint64 // 0: none
	all   uint64
}

// readCharges reads them from the cgroup's directory, of either version.
func readCharges(paths map[string]string) (*charges, error) {
	dir, v1 := paths["memory"]
	limit, all := "memory.limit_in_bytes", "memory.usage_in_bytes"
	if !v1 {
		dir, limit, all = paths[""], "memory.max", "memory.current"
	}
	used, err := preflight.UsageOf(paths)
	if err != nil {
		return nil, err
	}
	c := &charges{Usage: used}
	if c.all, err = readNumber(filepath.Join(dir, all)); err != nil {
		return nil, err
	}
	c.limit, err = readNumber(filepath.Join(dir, limit))
	const unlimited = 1 << 62 // v1 says so with the largest number of pages
	if c.limit >= unlimited {
		c.limit = 0
	}
	return c, err
}

// readNumber reads a file with one number; "max" is 0.
func readNumber(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read charges for memory: %w", err)
	}
	word := strings.TrimSpace(string(text))
	if word == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read charges for memory: %w", err)
	}
	return n, nil
}

// room tells by an error that the container would not fit its limit if each process had its anonymous memory, so many bytes of
// them all, to itself. A sixty-fourth is for page tables.
func (c *charges) room(anonymous uint64) error {
	if c.limit == 0 || anonymous <= c.Anonymous {
		return nil
	}
	needs := c.all - min(c.all, c.Files+c.Anonymous) + anonymous + anonymous/64
	if needs <= c.limit {
		return nil
	}
	return fmt.Errorf("%w: %d MiB in all, its limit is %d MiB", errCrowded, needs>>20, c.limit>>20)
}

// fits is room, asked of the container's processes as they are just now. Where nobody counts memory nobody limits it.
func (c *container) fits() error {
	charged, err := readCharges(c.State().CgroupPaths)
	if err != nil || charged.limit == 0 {
		if err != nil {
			c.log.Debug("limit of memory is not known", "error", err)
		}
		return nil
	}
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	var anonymous uint64
	for _, pid := range pids {
		if status, err := process.ReadStatus(pid); err == nil { // else it has just ended
			anonymous += status.Anonymous
		}
	}
	return charged.room(anonymous)
}

// fit is room, asked of what CRIU has left to us of a container that stands.
func (h *held) fit() error {
	charged, err := readCharges(h.container.State().CgroupPaths)
	if err != nil {
		return nil //nolint:nilerr // as in fits
	}
	var pages uint64
	for _, left := range h.Left() {
		for _, r := range left.Pages {
			pages += r.Pages
		}
	}
	return charged.room(pages * memory.PageSize)
}
