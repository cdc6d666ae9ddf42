package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/livemigrate/migrate/internal/memory"
)

// ErrUnresolved: a page map says that pages are in a parent, and there is none. CRIU would not refuse such a set but try
// for ever. The text names the file. Take the checkpoint again.
var ErrUnresolved = errors.New("page map leads to a parent that does not exist")

// PageFlags say where the pages of a run are: PE_PARENT, PE_LAZY and PE_PRESENT of criu/include/image.h.
type PageFlags uint32

const (
	// PageParent says that they are in the parent's images.
	PageParent PageFlags = flagParent
	// PageLazy says that a lazy restore may ask for them later.
	PageLazy PageFlags = 2
	// PagePresent says that they are in the page file. Without PageLazy a lazy restore takes them at once, too.
	PagePresent PageFlags = flagPresent
)

// PageRun is an entry of a page map.
type PageRun struct {
	memory.Range
	Flags PageFlags
}

// PageMap is the map of one process's address space: pagemap-VPID.img. The pages of its runs that are PagePresent follow
// each other in pages-PagesID.img, in the order of the runs.
type PageMap struct {
	VPid    int    // the pid in the container's pid namespace, by which CRIU names files
	PagesID uint32 // which page file
	Runs    []PageRun

	wide, narrow bool // which of the two fields CRIU wrote the counts to: what it writes it reads
}

const pageMapMagic = 0x56084025

// Bounds of what is taken for a run: the address space has 2^52 pages.
const maxRunPages = 1 << 52

// ReadPageMaps reads the maps of all processes in dir; those of shared memory are not among them. A map that is cut or
// altered is ErrDamaged.
func ReadPageMaps(dir string) ([]*PageMap, error) {
	names, err := list(dir)
	if err != nil {
		return nil, fmt.Errorf("read page maps: %w", err)
	}
	var maps []*PageMap
	for _, name := range names {
		digits, isMap := strings.CutPrefix(strings.TrimSuffix(name, ".img"), "pagemap-")
		vpid, err := strconv.Atoi(digits)
		if !isMap || err != nil || vpid <= 0 {
			continue // pagemap-shmem-ID.img
		}
		m, err := readPageMap(dir, name)
		if err != nil {
			return nil, fmt.Errorf("read page maps: %w", err)
		}
		m.VPid = vpid
		maps = append(maps, m)
	}
	return maps, nil
}

func readPageMap(dir, name string) (*PageMap, error) {
	content, err := readImage(dir, name)
	if err != nil {
		return nil, err
	}
	return parsePageMap(name, content)
}

// parsePageMap reads a map of any length, without a copy: a fragmented process has a million runs, and stands still.
func parsePageMap(name string, content []byte) (*PageMap, error) {
	const shortest = 12 // bytes of a run's record with its length
	m, headed, behind := &PageMap{}, false, uint64(0)
	err := eachRecord(name, content, pageMapMagic, func(record []byte) error {
		if !headed {
			head, err := parseEntry(record)
			if err != nil {
				return damaged(name, "%v", err)
			}
			headed = true
			m.PagesID = uint32(head.number(headPagesID))
			m.Runs = make([]PageRun, 0, len(content)/shortest)
			return nil
		}
		run, err := m.parseRun(record)
		if err != nil {
			return damaged(name, "%v", err)
		}
		if run.Pages > maxRunPages || run.Start%memory.PageSize != 0 || run.Start < behind || run.End() < run.Start {
			return damaged(name, "a run of %d pages at %#x behind %#x", run.Pages, run.Start, behind)
		}
		behind = run.End()
		m.Runs = append(m.Runs, run)
		return nil
	})
	if err == nil && !headed {
		err = damaged(name, "cut before its first record")
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// parseRun decodes a pagemap_entry.
func (m *PageMap) parseRun(record []byte) (PageRun, error) {
	var run PageRun
	flags, parent := uint64(flagPresent), uint64(0) // what an entry of CRIU before 2.4 means
	for len(record) > 0 {
		field, kind, n := protowire.ConsumeTag(record)
		if n < 0 {
			return run, protowire.ParseError(n)
		}
		record = record[n:]
		if kind != protowire.VarintType {
			if n = protowire.ConsumeFieldValue(field, kind, record); n < 0 {
				return run, protowire.ParseError(n)
			}
			record = record[n:]
			continue
		}
		number, n := protowire.ConsumeVarint(record)
		if n < 0 {
			return run, protowire.ParseError(n)
		}
		record = record[n:]
		switch field {
		case entryAddress:
			run.Start = number
		case entryPages:
			if number > math.MaxUint32 { // CRIU would read its lower half, and so would we once it is written again
				return run, fmt.Errorf("a count of %d pages in 32 bits", number)
			}
			m.narrow = true
			run.Pages = max(run.Pages, number)
		case entryPages2:
			m.wide = true
			run.Pages = max(run.Pages, number)
		case entryParent:
			parent = number
		case entryFlags:
			flags = number
		}
	}
	run.Flags = PageFlags(flags)
	if parent != 0 {
		run.Flags |= PageParent
	}
	return run, nil
}

// Left are the pages whose content is in no file: they are only where the process is, or at a page server.
func (m *PageMap) Left() []memory.Range {
	var left []memory.Range
	for _, run := range m.Runs {
		if run.Flags&PageLazy == 0 || run.Flags&(PagePresent|PageParent) != 0 {
			continue
		}
		if k := len(left) - 1; k >= 0 && left[k].End() == run.Start {
			left[k].Pages += run.Pages
			continue
		}
		left = append(left, run.Range)
	}
	return left
}

// add appends a run, or makes the last one longer.
func (m *PageMap) add(r memory.Range, flags PageFlags) {
	if k := len(m.Runs) - 1; k >= 0 && m.Runs[k].End() == r.Start && m.Runs[k].Flags == flags {
		m.Runs[k].Pages += r.Pages
		return
	}
	m.Runs = append(m.Runs, PageRun{Range: r, Flags: flags})
}

func (m *PageMap) name() string { return fmt.Sprintf("pagemap-%d.img", m.VPid) }

func pagesName(id uint32) string { return fmt.Sprintf("pages-%d.img", id) }

// Write puts the map in the place of the one in dir, whole or not at all.
func (m *PageMap) Write(dir string) error {
	path := filepath.Join(dir, m.name())
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write page map: %w", err)
	}
	out := bufio.NewWriterSize(f, 1<<16)
	_, err = out.Write(m.encode())
	if err = errors.Join(err, out.Flush(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write page map: %w", err), os.Remove(path+".new"))
	}
	return nil
}

func (m *PageMap) encode() []byte {
	file := binary.LittleEndian.AppendUint32(nil, commonMagic)
	file = binary.LittleEndian.AppendUint32(file, pageMapMagic)
	record := protowire.AppendVarint(protowire.AppendTag(nil, headPagesID, protowire.VarintType), uint64(m.PagesID))
	file = appendRecord(file, record)
	for _, run := range m.Runs {
		record = record[:0]
		number := func(field protowire.Number, value uint64) {
			record = protowire.AppendVarint(protowire.AppendTag(record, field, protowire.VarintType), value)
		}
		number(entryAddress, run.Start)
		if m.narrow || !m.wide {
			number(entryPages, uint64(uint32(run.Pages)))
		}
		number(entryFlags, uint64(run.Flags))
		if m.wide {
			number(entryPages2, run.Pages)
		}
		file = appendRecord(file, record)
	}
	return file
}

func appendRecord(file, record []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(file, uint32(len(record))), record...)
}

// CheckResolved is ErrUnresolved when a page map in dir, of a process or of shared memory, refers to a parent. A set that
// has no parent must pass before it goes anywhere.
func CheckResolved(dir string) error {
	names, err := list(dir)
	if err != nil {
		return fmt.Errorf("check page maps: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "pagemap-") {
			continue
		}
		m, err := readPageMap(dir, name)
		if err != nil {
			return fmt.Errorf("check page maps: %w", err)
		}
		for _, run := range m.Runs {
			if run.Flags&PageParent != 0 {
				return fmt.Errorf("%s: %d pages at %#x: %w", name, run.Pages, run.Start, ErrUnresolved)
			}
		}
	}
	if link, err := parentOf(dir); err != nil || link != "" {
		return errors.Join(err, fmt.Errorf("%s: link to %q: %w", parentName, link, ErrUnresolved))
	}
	return nil
}

// SharedPages names the page files of shared memory in dir so far. CRIU only appends to them, and nothing here rewrites
// them, so they may be read while a dump still runs that leaves memory out.
func SharedPages(dir string) ([]string, error) {
	names, err := list(dir)
	if err != nil {
		return nil, fmt.Errorf("find shared memory: %w", err)
	}
	var files []string
	for _, name := range names {
		if !strings.HasPrefix(name, "pagemap-shmem-") {
			continue
		}
		// Half written, its head at most is there.
		head := make([]byte, 64)
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("find shared memory: %w", err)
		}
		n, _ := f.Read(head)
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("find shared memory: %w", err)
		}
		if id, ok := pagesID(head[:n]); ok {
			files = append(files, pagesName(id))
		}
	}
	return files, nil
}

// pagesID reads the head of a page map.
func pagesID(file []byte) (uint32, bool) {
	const behindMagics = 8
	if len(file) < behindMagics+4 {
		return 0, false
	}
	size := binary.LittleEndian.Uint32(file[behindMagics:])
	file = file[behindMagics+4:]
	if uint64(size) > uint64(len(file)) {
		return 0, false
	}
	head, err := parseEntry(file[:size])
	if err != nil {
		return 0, false
	}
	return uint32(head.number(headPagesID)), true
}
