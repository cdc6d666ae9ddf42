package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Descriptors lists the numbers of a process's open descriptors, which are names in /proc/PID/fd, unsorted. Nothing is asked of
// each. ErrNotExist or ESRCH, see Gone, when there is no such process.
func Descriptors(pid int) ([]string, error) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// Mapping is a line of /proc/PID/maps, see proc(5).
type Mapping struct {
	Area   string // START-END, its name in /proc/PID/map_files
	Rights string // "rwxp", of a shared one "rwxs"
	Device string // major:minor
	Inode  uint64
	Name   string // with a line feed as \012; the link in map_files has it as it is
}

// Writable tells whether the process may write to it.
func (m *Mapping) Writable() bool { return m.Rights[1] == 'w' }

// Shared tells whether what is written goes to the file, or to other processes.
func (m *Mapping) Shared() bool { return m.Rights[3] == 's' }

// Mappings reads the mappings of a process and shows each, in the order of addresses, until one is an error. The Mapping is
// reused. Errors as of Descriptors.
func Mappings(pid int, see func(*Mapping) error) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	var m Mapping
	for line := range strings.Lines(string(text)) {
		if !m.parse(strings.TrimSuffix(line, "\n")) {
			return fmt.Errorf("read mappings of process %d: %q", pid, line)
		}
		if err := see(&m); err != nil {
			return err
		}
	}
	return nil
}

// parse reads "00400000-00401000 rw-s 00000000 00:01 1027      /memfd:cache (deleted)".
func (m *Mapping) parse(line string) bool {
	addresses, rest, _ := strings.Cut(line, " ")
	m.Rights, rest, _ = strings.Cut(rest, " ")
	_, rest, _ = strings.Cut(rest, " ") // the offset
	m.Device, rest, _ = strings.Cut(rest, " ")
	inode, name, _ := strings.Cut(rest, " ")
	m.Area, m.Name = area(addresses), strings.TrimLeft(name, " ")
	var err error
	m.Inode, err = strconv.ParseUint(inode, 10, 64)
	return err == nil && len(m.Rights) == 4
}

// area takes the zeros away that maps pads with, and map_files does not.
func area(addresses string) string {
	from, to, _ := strings.Cut(addresses, "-")
	trimmed, end := strings.TrimLeft(from, "0"), strings.TrimLeft(to, "0")
	if trimmed == from && end == to {
		return addresses
	}
	if trimmed == "" {
		trimmed = "0"
	}
	return trimmed + "-" + end
}

// Gone forgives an error that says that a process, or its descriptor, has ended.
func Gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
