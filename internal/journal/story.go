package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Story is what a journal tells, read without its lock.
type Story struct {
	Path    string
	Move    Move
	Records []Record

	end int64
}

// Last is the newest step.
func (s *Story) Last() Step { return s.Records[len(s.Records)-1].Step }

// Rebooted tells whether the host was started anew since the newest record: no process of then is alive.
func (s *Story) Rebooted() bool {
	then, now := s.Records[len(s.Records)-1].Boot, BootID()
	return then != "" && now != "" && then != now
}

// Ended tells whether nothing is left to decide.
func (s *Story) Ended() bool { return s.Last().Ends() }

// Ends tells whether nothing is left to decide after a record of this step.
func (s Step) Ends() bool {
	switch s {
	case Done, RolledBack, Aborted, Running:
		return true
	default:
		return false
	}
}

// Began is the time of the first record.
func (s *Story) Began() time.Time { return s.Records[0].At }

// Read reads the journal of one move. os.ErrNotExist when there is none.
func Read(dir, move string, role Role) (*Story, error) {
	return read(Path(dir, move, role))
}

// List reads every journal of a directory, oldest first. A missing directory is an empty one. Files that can't be read are
// left out and named in the error, next to what could be read.
func List(dir string) ([]*Story, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list journals: %w", err)
	}
	var stories []*Story
	var failed []error
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), "."+string(Source)) && !strings.HasSuffix(entry.Name(), "."+string(Peer)) {
			continue
		}
		story, err := read(filepath.Join(dir, entry.Name()))
		if err != nil {
			failed = append(failed, err)
			continue
		}
		stories = append(stories, story)
	}
	slices.SortFunc(stories, func(a, b *Story) int { return a.Began().Compare(b.Began()) })
	return stories, errors.Join(failed...)
}

// peerKeeps is how long the peer's side of a move can be asked for: the source may be frozen, and its owner away.
const peerKeeps = 30 * 24 * time.Hour

// Prune removes, when another move of its container begins, journals that nobody will ask for any more: ended ones of the
// same side, but for the newest.
func Prune(dir string, m Move) error {
	stories, err := List(dir)
	var newest *Story
	for _, s := range slices.Backward(stories) {
		if s.Move.Container != m.Container || s.Move.Root != m.Root || s.Move.Role != m.Role {
			continue
		}
		if newest == nil {
			newest = s
			continue
		}
		if s.Ended() && (m.Role == Source || time.Since(s.Began()) > peerKeeps) {
			err = errors.Join(err, os.Remove(s.Path))
		}
	}
	return err
}

func read(path string) (*Story, error) {
	content, err := readUsed(path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	records, end := parse(content)
	if len(records) == 0 || records[0].Step != Begin || records[0].Move == nil {
		return nil, fmt.Errorf("read %s: %w", path, ErrCorrupt)
	}
	return &Story{Path: path, Move: *records[0].Move, Records: records, end: int64(end)}, nil
}

// readUsed reads a file as far as its records go: most of it is zeros, and there may be many journals.
func readUsed(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var content []byte
	for chunk := make([]byte, 4<<10); ; {
		n, err := io.ReadFull(file, chunk)
		content = append(content, chunk[:n]...)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return content, nil
		}
		if err != nil {
			return nil, err
		}
		_, end := parse(content)
		if rest := content[end:]; len(rest) >= headerSize && binary.LittleEndian.Uint32(rest) == 0 {
			return content, nil
		}
	}
}

// parse returns the whole records at the start of a file and where they end.
func parse(content []byte) (records []Record, end int) {
	for {
		rest := content[end:]
		if len(rest) < headerSize {
			return records, end
		}
		length := int64(binary.LittleEndian.Uint32(rest))
		if length == 0 || length > int64(len(rest)-headerSize) {
			return records, end
		}
		payload := rest[headerSize : headerSize+length]
		if crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(rest[4:]) {
			return records, end
		}
		var r Record
		if json.Unmarshal(payload, &r) != nil || r.Step == "" {
			return records, end
		}
		records = append(records, r)
		end += headerSize + int(length)
	}
}
