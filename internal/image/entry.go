package image

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// entry is a protobuf message of CRIU's, by field number; of other types than these two we need nothing.
//
// It is read without generated code: that of CRIU's images registers forty files of descriptors before main, in every one
// of the three processes that start a container, for the dozen fields that we look at.
type entry struct {
	numbers map[protowire.Number][]uint64 // varints; a field that repeats has several
	bytes   map[protowire.Number][][]byte // texts, messages, and packed varints
}

// parseEntry refuses what is no message. It does not copy.
func parseEntry(data []byte) (*entry, error) {
	m := &entry{numbers: map[protowire.Number][]uint64{}, bytes: map[protowire.Number][][]byte{}}
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(field, kind, data); n < 0 {
			return nil, protowire.ParseError(n)
		}
		value := data[:n]
		switch kind {
		case protowire.VarintType:
			number, _ := protowire.ConsumeVarint(value)
			m.numbers[field] = append(m.numbers[field], number)
		case protowire.BytesType:
			payload, _ := protowire.ConsumeBytes(value)
			m.bytes[field] = append(m.bytes[field], payload)
		}
		data = data[n:]
	}
	return m, nil
}

// number is a field that does not repeat; 0 when it is not there.
func (m *entry) number(field protowire.Number) uint64 {
	list := m.numbers[field]
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1] // the last one counts
}

// list is a field that repeats. Writers may pack it, readers must take both.
func (m *entry) list(field protowire.Number) ([]uint64, error) {
	list := slices.Clone(m.numbers[field])
	for _, packed := range m.bytes[field] {
		for len(packed) > 0 {
			number, n := protowire.ConsumeVarint(packed)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			list, packed = append(list, number), packed[n:]
		}
	}
	return list, nil
}

// child is a message within; an empty one when the field is not there.
func (m *entry) child(field protowire.Number) (*entry, error) {
	list := m.bytes[field]
	if len(list) == 0 {
		return parseEntry(nil)
	}
	return parseEntry(list[len(list)-1])
}
