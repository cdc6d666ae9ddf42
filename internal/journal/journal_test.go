package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newMove() Move {
	return Move{Name: strings.Repeat("ab", 16), Role: Source, Container: "web", Root: "/run/migrate", Peer: "unix:///b"}
}

func TestStoryIsWhatWasAppended(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, err := Create(dir, newMove())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []Step{CommitSent, Done} {
		if err := j.Append(step, "why "+string(step)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	story, err := Read(dir, newMove().Name, Source)
	if err != nil {
		t.Fatal(err)
	}
	if story.Move != newMove() || len(story.Records) != 3 || story.Last() != Done || story.Records[1].Step != CommitSent || !story.Ended() {
		t.Errorf("got %+v", story)
	}
}

// A power cut may end the file at any byte of the last record; what was appended before must still be there.
func TestTornRecordIsAsIfNeverWritten(t *testing.T) {
	dir := t.TempDir()
	j, err := Create(dir, newMove())
	if err != nil {
		t.Fatal(err)
	}
	before := j.end
	if err := j.Append(CommitSent, ""); err != nil {
		t.Fatal(err)
	}
	after := j.end
	j.Close()
	path := Path(dir, newMove().Name, Source)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := before; cut < after; cut++ {
		torn := append([]byte{}, whole[:cut]...)
		torn = append(torn, make([]byte, size-len(torn))...)
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		story, err := Read(dir, newMove().Name, Source)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if story.Last() != Begin {
			t.Fatalf("cut at %d: last step is %s", cut, story.Last())
		}
	}
	// The next writer writes over the torn record.
	j, err = Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.Append(RolledBack, ""); err != nil {
		t.Fatal(err)
	}
	if story, err := Read(dir, newMove().Name, Source); err != nil || story.Last() != RolledBack || len(story.Records) != 2 {
		t.Errorf("after the repair: %+v, %v", story, err)
	}
}

// A record that the disk refused was never acted upon: whoever looks later must not act upon it either.
func TestRecordThatWasNotSyncedIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	j, err := Create(dir, newMove())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	lost := errors.New("input/output error")
	j.sync = func() error { return lost }
	if err := j.Append(CommitSent, ""); !errors.Is(err, lost) {
		t.Errorf("Append: %v, want %v", err, lost)
	}
	j.sync = func() error { return nil }
	if err := j.Append(RolledBack, ""); !errors.Is(err, lost) {
		t.Errorf("Append to a journal that lost a record: %v, want %v", err, lost)
	}
	story, err := Read(dir, newMove().Name, Source)
	if err != nil || story.Last() != Begin || j.Last() != Begin {
		t.Errorf("the lost record is there: %+v, %v", story, err)
	}
}

func TestRebootIsNoticed(t *testing.T) {
	dir := t.TempDir()
	j, err := Create(dir, newMove())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for boot, want := range map[string]bool{j.boot: false, "another boot": true, "": false} {
		j.boot = boot
		if err := j.Append(Running, ""); err != nil {
			t.Fatal(err)
		}
		if story, err := Read(dir, newMove().Name, Source); err != nil || story.Rebooted() != want {
			t.Errorf("boot %q: rebooted is %v, %v", boot, !want, err)
		}
	}
}

func TestTwoProcessesCannotDecideOneMove(t *testing.T) {
	dir := t.TempDir()
	j, err := Create(dir, newMove())
	if err != nil {
		t.Fatal(err)
	}
	path := Path(dir, newMove().Name, Source)
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Errorf("Open of a journal in use: %v, want ErrLocked", err)
	}
	j.Close()
	second, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func TestListGoesOnPastACorruptJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := Create(dir, newMove())
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	if err := os.WriteFile(filepath.Join(dir, "cc.peer"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	stories, err := List(dir)
	if len(stories) != 1 || !errors.Is(err, ErrCorrupt) {
		t.Errorf("List: %d stories, %v", len(stories), err)
	}
	if stories, err := List(filepath.Join(dir, "none")); stories != nil || err != nil {
		t.Errorf("List of no directory: %v, %v", stories, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if _, end := parse(content); end > len(content) {
			t.Errorf("ends at %d of %d", end, len(content))
		}
	})
}

// FuzzRecords: behind a digest that is right there may still be anything. What is read before it stays.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"step":"begin","move":{"name":"0","container":"web"}}`), []byte(`{"step":"done"}`))
	f.Add([]byte(`{}`), []byte(nil))
	record := func(payload []byte) []byte {
		head := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
		head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
		return append(head, payload...)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		one := record(first)
		before, end := parse(one)
		records, whole := parse(append(bytes.Clone(one), record(second)...))
		if end != 0 && end != len(one) || len(records) < len(before) || whole < end {
			t.Errorf("%q ends at %d of %d with %d records; with %q behind it at %d with %d", first, end, len(one), len(before), second, whole, len(records))
		}
		for _, r := range records {
			if r.Step == "" {
				t.Errorf("a record without a step in %q, %q", first, second)
			}
		}
	})
}

// Journals don't pile up, and none goes that somebody may still ask for.
func TestPruneKeepsWhatCanStillBeAskedFor(t *testing.T) {
	dir := t.TempDir()
	for i, m := range []struct {
		role      Role
		container string
		last      Step
	}{
		{Source, "web", Done}, {Source, "web", CommitSent}, {Source, "db", Done}, {Peer, "web", Running}, {Source, "web", RolledBack},
	} {
		j, err := Create(dir, Move{Name: fmt.Sprintf("%032d", i), Role: m.role, Container: m.container})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Append(m.last, ""); err != nil {
			t.Fatal(err)
		}
		j.Close()
	}
	for _, role := range []Role{Source, Peer} {
		if err := Prune(dir, Move{Role: role, Container: "web"}); err != nil {
			t.Fatal(err)
		}
	}
	stories, err := List(dir)
	if err != nil || len(stories) != 4 {
		t.Errorf("%d journals are left, want all but the oldest: %v", len(stories), err)
	}
}

// Whatever an error has to tell, the move's end is recorded.
func TestLongDetailIsCut(t *testing.T) {
	dir := t.TempDir()
	j, err := Create(dir, Move{Name: strings.Repeat("0a", 16), Role: Source})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.Append(RolledBack, strings.Repeat("\u00f6\x01", size)); err != nil {
		t.Fatal(err)
	}
	story, err := read(j.file.Name())
	if err != nil || story.Last() != RolledBack || len(story.Records[1].Detail) > longestDetail+3 {
		t.Errorf("%+v, %v", story, err)
	}
}
