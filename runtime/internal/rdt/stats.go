package rdt

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Stats are a group's shares and counters; as JSON they are what runc's events verb prints.
type Stats struct {
	L3CacheInfo       *L3CacheInfo         `json:"l3_cache_info,omitempty"`
	L3CacheSchemaRoot string               `json:"l3_cache_schema_root,omitempty"`
	L3CacheSchema     string               `json:"l3_cache_schema,omitempty"`
	MemBwInfo         *MemBwInfo           `json:"mem_bw_info,omitempty"`
	MemBwSchemaRoot   string               `json:"mem_bw_schema_root,omitempty"`
	MemBwSchema       string               `json:"mem_bw_schema,omitempty"`
	Schemata          []string             `json:"schemata,omitempty"`
	MBMStats          *[]BandwidthCounters `json:"mbm_stats,omitempty"` // by L3 cache, as mon_data lists them
	CMTStats          *[]CacheCounters     `json:"cmt_stats,omitempty"`
}

// L3CacheInfo is what the processor's cache can be cut into.
type L3CacheInfo struct {
	CbmMask    string `json:"cbm_mask,omitempty"`
	MinCbmBits uint64 `json:"min_cbm_bits,omitempty"`
	NumClosids uint64 `json:"num_closids,omitempty"`
}

// MemBwInfo is what memory bandwidth can be cut into, in percent.
type MemBwInfo struct {
	BandwidthGran uint64 `json:"bandwidth_gran,omitempty"`
	DelayLinear   uint64 `json:"delay_linear,omitempty"`
	MinBandwidth  uint64 `json:"min_bandwidth,omitempty"`
	NumClosids    uint64 `json:"num_closids,omitempty"`
}

// BandwidthCounters are bytes moved, in all and to memory of the same node.
type BandwidthCounters struct {
	MBMTotalBytes uint64 `json:"mbm_total_bytes"`
	MBMLocalBytes uint64 `json:"mbm_local_bytes"`
}

// CacheCounters are bytes of cache that are occupied.
type CacheCounters struct {
	LLCOccupancy uint64 `json:"llc_occupancy"`
}

// Stats reads the group's files. Without a monitoring group of the container's own the counters are those of all who share
// the class.
func (g *Group) Stats() (*Stats, error) {
	if g.root == "" {
		return nil, errNotMounted
	}
	r := &reader{}
	top, own := r.lines(g.root, "schemata"), r.lines(g.place.Path, "schemata")
	s := &Stats{Schemata: own}
	if HasCAT(g.root) {
		info := filepath.Join(g.root, "info", "L3")
		s.L3CacheInfo = &L3CacheInfo{
			CbmMask: r.text(info, "cbm_mask"), MinCbmBits: r.number(info, "min_cbm_bits"), NumClosids: r.number(info, "num_closids"),
		}
		s.L3CacheSchemaRoot, s.L3CacheSchema = schemaOf(top, "L3"), schemaOf(own, "L3")
	}
	if HasMBA(g.root) {
		info := filepath.Join(g.root, "info", "MB")
		s.MemBwInfo = &MemBwInfo{
			BandwidthGran: r.number(info, "bandwidth_gran"), DelayLinear: r.number(info, "delay_linear"),
			MinBandwidth: r.number(info, "min_bandwidth"), NumClosids: r.number(info, "num_closids"),
		}
		s.MemBwSchemaRoot, s.MemBwSchema = schemaOf(top, "MB"), schemaOf(own, "MB")
	}
	if exists(g.root, "info/L3_MON") {
		g.monitor(r, s)
	}
	if r.err != nil {
		return nil, fmt.Errorf("read resctrl group: %w", r.err)
	}
	return s, nil
}

// monitor reads the counters that the processor has.
func (g *Group) monitor(r *reader, s *Stats) {
	features := r.lines(g.root, "info/L3_MON/mon_features")
	total, local := slices.Contains(features, "mbm_total_bytes"), slices.Contains(features, "mbm_local_bytes")
	occupancy := slices.Contains(features, "llc_occupancy")
	dir := g.place.Mon
	if dir == "" {
		dir = g.place.Path
	}
	caches, err := os.ReadDir(filepath.Join(dir, "mon_data"))
	r.fail(err)
	bandwidth, cache := []BandwidthCounters{}, []CacheCounters{}
	for _, entry := range caches {
		at := filepath.Join(dir, "mon_data", entry.Name())
		var b BandwidthCounters
		if total {
			b.MBMTotalBytes = r.number(at, "mbm_total_bytes")
		}
		if local {
			b.MBMLocalBytes = r.number(at, "mbm_local_bytes")
		}
		bandwidth = append(bandwidth, b)
		if occupancy {
			cache = append(cache, CacheCounters{LLCOccupancy: r.number(at, "llc_occupancy")})
		}
	}
	if total || local {
		s.MBMStats = &bandwidth
	}
	if occupancy {
		s.CMTStats = &cache
	}
}

// schemaOf is the line of a resource; the root's lines are padded.
func schemaOf(lines []string, resource string) string {
	for _, line := range lines {
		if strings.HasPrefix(line, resource) {
			return line
		}
	}
	return ""
}

// reader keeps the first error.
type reader struct{ err error }

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) text(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	r.fail(err)
	return strings.TrimSpace(string(data))
}

func (r *reader) lines(dir, name string) []string {
	var out []string
	for line := range strings.Lines(r.text(dir, name)) {
		out = append(out, strings.TrimSpace(line))
	}
	return out
}

// number reads a counter. "Unavailable" means that the processor has not counted yet, which is zero to everybody.
func (r *reader) number(dir, name string) uint64 {
	text := r.text(dir, name)
	if r.err != nil || text == "Unavailable" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("parse %s: %w", filepath.Join(dir, name), err))
	}
	return n
}
