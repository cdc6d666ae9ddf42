package image

import "google.golang.org/protobuf/encoding/protowire"

// Fields of CRIU's file_entry and timerfd_entry, and its word for the kind.
const (
	fileTimer = 12

	timerTicks       = 5
	timerSeconds     = 7
	timerNanoseconds = 8
	timerEvery       = 9 // seconds, and nanoseconds in the next

	typeTimer = 17
)

// RearmTimers mends the timers (timerfd) of the set in dir that repeat and had run out, unread, when CRIU looked: the kernel starts
// such a timer again when it is read, and says until then that no time is left. CRIU (4.2) restores that as a timer which is not
// set, and it would never run out again. They get a whole interval.
func RearmTimers(dir string) error {
	content, err := readImage(dir, filesName)
	if err != nil {
		return err
	}
	out := append([]byte(nil), content[:min(len(content), 8)]...) // two magic numbers, which the reader checks
	mended := false
	err = eachRecord(filesName, content, filesMagic, func(record []byte) error {
		after, err := rearm(record)
		if err != nil {
			return damaged(filesName, "%v", err)
		}
		mended = mended || after != nil
		if after == nil {
			after = record
		}
		out = appendRecord(out, after)
		return nil
	})
	if err != nil || !mended {
		return err
	}
	return replace(dir, filesName, out)
}

// rearm is the record as it should be, nil if that is what it is.
func rearm(record []byte) ([]byte, error) {
	file, err := parseEntry(record)
	if err != nil || file.number(fileType) != typeTimer {
		return nil, err
	}
	timer, err := file.child(fileTimer)
	if err != nil {
		return nil, err
	}
	raw := file.bytes[fileTimer]
	seconds, nanoseconds := timer.number(timerEvery), timer.number(timerEvery+1)
	unset := timer.number(timerSeconds) == 0 && timer.number(timerNanoseconds) == 0
	if len(raw) == 0 || !unset || timer.number(timerTicks) == 0 || seconds == 0 && nanoseconds == 0 {
		return nil, nil
	}
	set := without(raw[len(raw)-1], func(field protowire.Number) bool { return field == timerSeconds || field == timerNanoseconds })
	set = appendNumber(appendNumber(set, timerSeconds, seconds), timerNanoseconds, nanoseconds)
	return protowire.AppendBytes(protowire.AppendTag(without(record, func(field protowire.Number) bool { return field == fileTimer }),
		fileTimer, protowire.BytesType), set), nil
}
