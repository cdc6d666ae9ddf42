package fanotify

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/livemigrate/migrate/internal/sys/fs"
)

// Entry is a directory and a name in it; "." is the directory itself.
type Entry struct {
	Dir  fs.Handle
	Name string
}

// Event is one change, or several of one object that the kernel merged.
type Event struct {
	Mask   uint64
	Entry  Entry     // where, as it was called at that moment
	From   Entry     // Renamed: the place before; Entry is the place after
	Object fs.Handle // the inode itself; empty when it was not reported
}

var errMalformed = errors.New("malformed fanotify event")

// The records behind each event (fanotify(7)):
//
//	event    len u32 | version u8 | reserved u8 | metadata_len u16 | mask u64 | fd s32 | pid s32
//	record   type u8 | pad u8 | len u16 | fsid u64 | handle_bytes u32 | handle_type s32 | handle | name \0
const (
	eventLen  = 24
	recordLen = 4
	handleLen = recordLen + 8 + 8
)

// Parse calls f for every event of a buffer as read from the kernel.
func Parse(buf []byte, f func(*Event)) error {
	for len(buf) > 0 {
		if len(buf) < eventLen || buf[4] != unix.FANOTIFY_METADATA_VERSION {
			return errMalformed
		}
		size := int(binary.NativeEndian.Uint32(buf))
		meta := int(binary.NativeEndian.Uint16(buf[6:]))
		if meta < eventLen || size < meta || size > len(buf) {
			return errMalformed
		}
		e := Event{Mask: binary.NativeEndian.Uint64(buf[8:])}
		if err := e.records(buf[meta:size]); err != nil {
			return err
		}
		f(&e)
		buf = buf[size:]
	}
	return nil
}

func (e *Event) records(buf []byte) error {
	for len(buf) > 0 {
		if len(buf) < recordLen {
			return errMalformed
		}
		size := int(binary.NativeEndian.Uint16(buf[2:]))
		if size < recordLen || size > len(buf) {
			return errMalformed
		}
		if err := e.record(buf[0], buf[:size]); err != nil {
			return err
		}
		buf = buf[size:]
	}
	return nil
}

func (e *Event) record(kind byte, buf []byte) error {
	switch kind {
	case unix.FAN_EVENT_INFO_TYPE_FID, unix.FAN_EVENT_INFO_TYPE_DFID, unix.FAN_EVENT_INFO_TYPE_DFID_NAME,
		unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
	default: // a later kernel's
		return nil
	}
	if len(buf) < handleLen {
		return errMalformed
	}
	n := int(binary.NativeEndian.Uint32(buf[12:]))
	if n > len(buf)-handleLen {
		return errMalformed
	}
	h := fs.MakeHandle(int32(binary.NativeEndian.Uint32(buf[16:])), buf[handleLen:handleLen+n])
	name, _, _ := bytes.Cut(buf[handleLen+n:], []byte{0})
	switch kind {
	case unix.FAN_EVENT_INFO_TYPE_FID:
		e.Object = h
	case unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME:
		e.From = Entry{Dir: h, Name: string(name)}
	case unix.FAN_EVENT_INFO_TYPE_DFID:
		e.Entry = Entry{Dir: h, Name: "."}
	default:
		e.Entry = Entry{Dir: h, Name: string(name)}
	}
	return nil
}
