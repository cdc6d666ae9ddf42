package bootstrap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The message is a netlink header followed by attributes, numbers in host order, each padded to four bytes:
//
//	+--------+------+-------+-----+-----+   +------+------+--------------+   +---
//	| length | type | flags | seq | pid |   | len  | type | payload, pad |   | ...
//	|   u32  | u16  |  u16  | u32 | u32 |   | u16  | u16  |              |   |
//	+--------+------+-------+-----+-----+   +------+------+--------------+   +---
//
// A text ends with a NUL byte. The same values stand in bootstrap.c.
const (
	messageType = 0x4d47
	messageMax  = 1 << 20
	headerSize  = 16
	attrHeader  = 4
	attrMax     = 1<<16 - 1
	maxMapLines = 340 // the kernel's limit for uid_map and gid_map since 4.15

	attrCloneFlags  = 1
	attrNamespaces  = 2
	attrUIDMap      = 3
	attrGIDMap      = 4
	attrNewUIDMap   = 5
	attrNewGIDMap   = 6
	attrSetgroups   = 7
	attrOOMScoreAdj = 8
	attrRootless    = 9
	attrTimeOffsets = 10
	attrDebug       = 11
)

// Message is what the C stage is told.
type Message struct {
	CloneFlags  uint32      // CLONE_NEW* of the namespaces to create
	Namespaces  []Namespace // to join, in this order; the user namespace is taken when it must be
	UIDMap      []specs.LinuxIDMapping
	GIDMap      []specs.LinuxIDMapping
	NewUIDMap   string // absolute path of newuidmap, for callers who may not write the map themselves; "" = none
	NewGIDMap   string
	Setgroups   bool                             // setgroups(2) stays allowed in the new user namespace
	OOMScoreAdj string                           // decimal; "" = inherited
	Rootless    bool                             // the caller is not root
	TimeOffsets map[string]specs.LinuxTimeOffset // of a new time namespace, by clock
	Debug       bool                             // the stage tells what it does
}

// Namespace is one namespace to join.
type Namespace struct {
	Type string // as in /proc/PID/ns: user, mnt, pid, net, ipc, uts, cgroup, time
	Path string // absolute
}

// CloneFlag returns the CLONE_NEW* flag of a namespace type as /proc/PID/ns spells it, 0 for an unknown one.
func CloneFlag(kind string) uint32 {
	switch kind {
	case "user":
		return unix.CLONE_NEWUSER
	case "mnt":
		return unix.CLONE_NEWNS
	case "pid":
		return unix.CLONE_NEWPID
	case "net":
		return unix.CLONE_NEWNET
	case "ipc":
		return unix.CLONE_NEWIPC
	case "uts":
		return unix.CLONE_NEWUTS
	case "cgroup":
		return unix.CLONE_NEWCGROUP
	case "time":
		return unix.CLONE_NEWTIME
	}
	return 0
}

// Validate says what in the message the C stage could misread or the kernel would refuse.
func (m *Message) Validate() error {
	joined := uint32(0)
	for _, ns := range m.Namespaces {
		flag := CloneFlag(ns.Type)
		switch {
		case flag == 0:
			return fmt.Errorf("unknown namespace type %q", ns.Type)
		case (joined|m.CloneFlags)&flag != 0:
			return fmt.Errorf("namespace %q is named twice", ns.Type)
		case !strings.HasPrefix(ns.Path, "/"):
			return fmt.Errorf("path of namespace %q is not absolute: %q", ns.Type, ns.Path)
		case strings.ContainsAny(ns.Path, ",\x00"):
			return fmt.Errorf("path of namespace %q contains a comma: %q", ns.Type, ns.Path)
		}
		joined |= flag
	}
	if joined&unix.CLONE_NEWUSER != 0 && len(m.UIDMap)+len(m.GIDMap) > 0 {
		return errors.New("id maps cannot be given for a user namespace that is joined by path")
	}
	if m.CloneFlags&unix.CLONE_NEWUSER != 0 && (len(m.UIDMap) == 0 || len(m.GIDMap) == 0) {
		return errors.New("a new user namespace needs uid and gid maps")
	}
	if len(m.UIDMap) > maxMapLines || len(m.GIDMap) > maxMapLines {
		return fmt.Errorf("id map has more than %d lines", maxMapLines)
	}
	for clock := range m.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return fmt.Errorf("unknown clock %q of a time namespace", clock)
		}
	}
	if len(m.TimeOffsets) > 0 && m.CloneFlags&unix.CLONE_NEWTIME == 0 {
		return errors.New("time offsets need a time namespace of the container's own")
	}
	for _, text := range []string{m.NewUIDMap, m.NewGIDMap, m.OOMScoreAdj} {
		if strings.ContainsRune(text, 0) {
			return fmt.Errorf("text with a NUL byte: %q", text)
		}
	}
	return nil
}

// Encode validates the message and returns it as the C stage reads it.
func (m *Message) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	e := encoder{buf: make([]byte, headerSize, 512)}
	e.number(attrCloneFlags, m.CloneFlags)
	e.text(attrNamespaces, formatNamespaces(m.Namespaces))
	e.text(attrUIDMap, formatMap(m.UIDMap))
	e.text(attrGIDMap, formatMap(m.GIDMap))
	e.text(attrNewUIDMap, m.NewUIDMap)
	e.text(attrNewGIDMap, m.NewGIDMap)
	e.flag(attrSetgroups, m.Setgroups)
	e.text(attrOOMScoreAdj, m.OOMScoreAdj)
	e.flag(attrRootless, m.Rootless)
	e.text(attrTimeOffsets, formatOffsets(m.TimeOffsets))
	e.flag(attrDebug, m.Debug)
	if e.err == nil && len(e.buf) > messageMax {
		e.err = fmt.Errorf("bootstrap message of %d bytes is too long", len(e.buf))
	}
	if e.err != nil {
		return nil, e.err
	}
	binary.NativeEndian.PutUint32(e.buf, uint32(len(e.buf)))
	binary.NativeEndian.PutUint16(e.buf[4:], messageType)
	return e.buf, nil
}

// encoder appends attributes; the first error sticks.
type encoder struct {
	buf []byte
	err error
}

func (e *encoder) attribute(kind uint16, payload []byte) {
	size := attrHeader + len(payload)
	if size > attrMax {
		e.err = fmt.Errorf("attribute %d of the bootstrap message has %d bytes, more than %d", kind, size, attrMax)
		return
	}
	e.buf = binary.NativeEndian.AppendUint16(e.buf, uint16(size))
	e.buf = binary.NativeEndian.AppendUint16(e.buf, kind)
	e.buf = append(e.buf, payload...)
	for len(e.buf)%4 != 0 {
		e.buf = append(e.buf, 0)
	}
}

func (e *encoder) number(kind uint16, value uint32) {
	e.attribute(kind, binary.NativeEndian.AppendUint32(nil, value))
}

func (e *encoder) flag(kind uint16, value bool) {
	if value {
		e.number(kind, 1)
	}
}

// text leaves an empty text out: for the C stage that is "not given".
func (e *encoder) text(kind uint16, value string) {
	if value != "" {
		e.attribute(kind, append([]byte(value), 0))
	}
}

func formatNamespaces(list []Namespace) string {
	words := make([]string, 0, len(list))
	for _, ns := range list {
		words = append(words, ns.Type+":"+ns.Path)
	}
	return strings.Join(words, ",")
}

func formatMap(lines []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&b, "%d %d %d\n", line.ContainerID, line.HostID, line.Size)
	}
	return b.String()
}

// formatOffsets writes the lines of /proc/PID/timens_offsets: clock, seconds, nanoseconds.
func formatOffsets(offsets map[string]specs.LinuxTimeOffset) string {
	clocks := make([]string, 0, len(offsets))
	for clock := range offsets {
		clocks = append(clocks, clock)
	}
	slices.Sort(clocks)
	var b strings.Builder
	for _, clock := range clocks {
		o := offsets[clock]
		b.WriteString(clock + " " + strconv.FormatInt(o.Secs, 10) + " " + strconv.FormatUint(uint64(o.Nanosecs), 10) + "\n")
	}
	return b.String()
}
