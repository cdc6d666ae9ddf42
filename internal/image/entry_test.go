package image

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestEntriesAreReadWhicheverWayCRIUPacksThem(t *testing.T) {
	plain := message(1, 7, 5, 300, 5, 1<<40)
	packed := protowire.AppendBytes(protowire.AppendTag(message(1, 7), 5, protowire.BytesType),
		protowire.AppendVarint(protowire.AppendVarint(nil, 300), 1<<40))
	mixed := protowire.AppendFixed64(protowire.AppendTag(nil, 9, protowire.Fixed64Type), 1)
	mixed = append(protowire.AppendFixed32(protowire.AppendTag(mixed, 8, protowire.Fixed32Type), 1), plain...)
	for name, data := range map[string][]byte{"plain": plain, "packed": packed, "among others": mixed} {
		e, err := parseEntry(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list, err := e.list(5)
		if err != nil || e.number(1) != 7 || !slices.Equal(list, []uint64{300, 1 << 40}) {
			t.Errorf("%s: %d, %v, %v", name, e.number(1), list, err)
		}
	}
}

func TestCutEntriesAreRefused(t *testing.T) {
	whole := protowire.AppendBytes(protowire.AppendTag(message(1, 1<<40), 4, protowire.BytesType), []byte("text"))
	whole = protowire.AppendFixed32(protowire.AppendTag(whole, 8, protowire.Fixed32Type), 1)
	starts := []int{0, len(message(1, 1<<40)), len(whole) - 5} // of fields: there a shorter message is whole
	for n := range len(whole) {
		if _, err := parseEntry(whole[:n]); (err == nil) != slices.Contains(starts, n) {
			t.Errorf("the first %d bytes of %d: %v", n, len(whole), err)
		}
	}
	for name, data := range map[string][]byte{
		"field zero": {0x00, 0x01}, "half a group": {0x0b}, "endless number": slices.Repeat([]byte{0xff}, 12),
		"longer than it is": {0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		if _, err := parseEntry(data); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
