package image

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// A timer that repeats goes on, and those that are not set, or run already, stay as they are.
func TestRearmTimers(t *testing.T) {
	timer := func(ticks, left, every uint64) []byte {
		var m []byte
		for field, value := range map[protowire.Number]uint64{1: 9, 4: 1, 5: ticks, 7: 0, 8: left, 9: 2, 10: every} {
			if field == 9 && every == 0 {
				value = 0
			}
			m = appendNumber(m, field, value)
		}
		record := appendNumber(appendNumber(nil, fileType, typeTimer), fileID, 9)
		return protowire.AppendBytes(protowire.AppendTag(record, fileTimer, protowire.BytesType), m)
	}
	for _, c := range []struct {
		name               string
		ticks, left, every uint64
		seconds, after     uint64
	}{
		{"ran out", 3, 0, 20, 2, 20},
		{"runs", 0, 7, 20, 0, 7},
		{"ran out once more while it runs", 1, 7, 20, 0, 7},
		{"is not set", 0, 0, 20, 0, 0},
		{"ran out, and does not repeat", 1, 0, 0, 0, 0},
	} {
		dir := t.TempDir()
		write(t, dir, filesName, file(filesMagic, timer(c.ticks, c.left, c.every)))
		if err := RearmTimers(dir); err != nil {
			t.Fatal(err)
		}
		records, err := readRecords(dir, filesName, filesMagic)
		if err != nil || len(records) != 1 {
			t.Fatalf("%s: %d records, %v", c.name, len(records), err)
		}
		entry, err := parseEntry(records[0])
		if err != nil {
			t.Fatal(err)
		}
		child, err := entry.child(fileTimer)
		if err != nil {
			t.Fatal(err)
		}
		if s, n := child.number(timerSeconds), child.number(timerNanoseconds); s != c.seconds || n != c.after || child.number(timerTicks) != c.ticks || entry.number(fileID) != 9 {
			t.Errorf("a timer that %s has %d s and %d ns left", c.name, s, n)
		}
	}
}
