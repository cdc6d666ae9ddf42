package track

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/livemigrate/migrate/internal/memory"
)

// area is a mapping of private anonymous memory, or several that touch each other.
type area struct{ start, end uint64 }

// readAreas lists what CRIU calls lazy (vma_entry_can_be_lazy, criu/include/vma.h): private, of no file, neither locked nor
// hugetlb, and not the kernel's own. Hugetlb has a file, and what may be dropped (MAP_DROPPABLE) is not worth the question.
// The second result is the list of stretches of the address space that hold areas and nothing else: gaps inside are not
// mapped, so that thousands of areas are scanned in one go.
func readAreas(t *task) (*areas, error) {
	name := "maps"
	if t.locked {
		name = "smaps" // which tells what is locked, and walks all page tables for it
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", t.pid, name))
	if err != nil {
		return nil, gone(err)
	}
	return parseAreas(text)
}

// areas of one address space, in ascending order.
type areas struct {
	mappings []area // one a mapping
	spans    []area // each holds mappings of the list and gaps only
}

var errMaps = errors.New("cannot read the list of mappings")

// parseAreas reads maps or smaps of proc(5):
//
//	7f0c1e000000-7f0c1e021000 rw-p 00000000 00:00 0     [heap]
//	VmFlags: rd wr mr mw me ac sd lo                                (smaps only, last of each)
func parseAreas(text []byte) (*areas, error) {
	a := &areas{}
	open := false // the last span can grow
	for line := range bytes.Lines(text) {
		if flags, ok := bytes.CutPrefix(line, []byte("VmFlags:")); ok {
			if len(a.mappings) > 0 && open && slices.ContainsFunc(bytes.Fields(flags), func(f []byte) bool { return string(f) == "lo" }) {
				a.dropLast()
				open = false
			}
			continue
		}
		if line[0] >= 'A' && line[0] <= 'Z' {
			continue
		}
		m, private, err := parseMapping(line)
		if err != nil {
			return nil, err
		}
		if !private {
			open = false
			continue
		}
		a.mappings = append(a.mappings, m)
		if open {
			a.spans[len(a.spans)-1].end = m.end
		} else {
			a.spans = append(a.spans, m)
		}
		open = true
	}
	return a, nil
}

// dropLast takes the last mapping out again.
func (a *areas) dropLast() {
	last := len(a.mappings) - 1
	span := &a.spans[len(a.spans)-1]
	if span.start == a.mappings[last].start {
		a.spans = a.spans[:len(a.spans)-1]
	} else {
		span.end = a.mappings[last-1].end
	}
	a.mappings = a.mappings[:last]
}

// parseMapping reads a line of maps; private: it is private anonymous memory.
func parseMapping(line []byte) (m area, private bool, err error) {
	start, rest, ok1 := hex(line, '-')
	end, rest, ok2 := hex(rest, ' ')
	if !ok1 || !ok2 || start >= end || len(rest) < len("rw-p ") {
		return area{}, false, fmt.Errorf("%w: %q", errMaps, line)
	}
	shared := rest[3]
	fields := bytes.Fields(rest[5:]) // offset, device, inode, name
	if len(fields) < 3 {
		return area{}, false, fmt.Errorf("%w: %q", errMaps, line)
	}
	file := string(fields[2]) != "0" || string(fields[1]) != "00:00"
	if len(fields) > 3 && !file {
		switch name := string(fields[3]); name {
		case "[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]":
			file = true
		default:
			file = name[0] == '/'
		}
	}
	return area{start, end}, shared == 'p' && !file, nil
}

// hex reads a number up to a separator.
func hex(text []byte, separator byte) (n uint64, rest []byte, ok bool) {
	for i, c := range text {
		switch {
		case c == separator:
			return n, text[i+1:], i > 0 && i <= 16
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, nil, false
		}
	}
	return 0, nil, false
}

// appendRun adds pages behind the others, to the last range where they touch it.
func appendRun(ranges []memory.Range, start, end uint64) []memory.Range {
	if n := len(ranges); n > 0 && ranges[n-1].End() == start {
		ranges[n-1].Pages += (end - start) / memory.PageSize
		return ranges
	}
	return append(ranges, memory.Range{Start: start, Pages: (end - start) / memory.PageSize})
}
