package image

import (
	"encoding/binary"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
)

// reserveSize is from how many bytes on an area that may not be written is taken for addresses that are only set aside. No peer
// that can hold the container lacks room for less.
const reserveSize = 1 << 30

// looseReserves has addresses that a process has only set aside, with PROT_NONE, made again with MAP_NORESERVE. The kernel
// counts nothing for them, but CRIU maps every area writable first and protects it later, and then the kernel asks whether there
// is memory for all of it: MariaDB sets 8 TB aside. With the flag, which changes nothing else where memory may be overcommitted,
// it doesn't ask.
func looseReserves(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "mm-*.img"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		const magic = 0x57492820
		records, err := readRecords(dir, filepath.Base(path), magic)
		if err != nil {
			return err
		}
		changed := false
		file := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, commonMagic), magic)
		for _, record := range records {
			const vmas = 14 // field of images/mm.proto
			loose, err := eachField(record, vmas, func(value []byte) ([]byte, error) {
				vma, err := loosened(value)
				changed = changed || err == nil && len(vma) != len(value)
				return vma, err
			})
			if err != nil {
				return damaged(filepath.Base(path), "%v", err)
			}
			file = appendRecord(file, loose)
		}
		if !changed {
			continue
		}
		if err := os.WriteFile(path, file, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// loosened is a field with an area, its tag left out, with the flag if that is one to set it for.
func loosened(value []byte) ([]byte, error) {
	message, n := protowire.ConsumeBytes(value)
	if n < 0 {
		return nil, protowire.ParseError(n)
	}
	vma, err := parseEntry(message)
	if err != nil {
		return nil, err
	}
	const start, end, prot, flags, status = 1, 2, 5, 6, 7 // fields of images/vma.proto
	const write, noReserve = 0x2, 0x4000                  // PROT_WRITE, MAP_NORESERVE
	if vma.number(end)-vma.number(start) < reserveSize || vma.number(prot)&write != 0 || !canBeLazy(vma.number(flags), vma.number(status)) {
		return value, nil
	}
	message, err = eachField(message, flags, func([]byte) ([]byte, error) {
		return protowire.AppendVarint(nil, vma.number(flags)|noReserve), nil
	})
	return protowire.AppendBytes(nil, message), err
}

// eachField is a message with what change makes of the values of one field.
func eachField(message []byte, field protowire.Number, change func(value []byte) ([]byte, error)) ([]byte, error) {
	var out []byte
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return nil, protowire.ParseError(tag)
		}
		n := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		value := message[tag : tag+n]
		if number == field {
			var err error
			if value, err = change(value); err != nil {
				return nil, err
			}
		}
		out = append(append(out, message[:tag]...), value...)
		message = message[tag+n:]
	}
	return out, nil
}
