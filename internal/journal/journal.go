// Package journal keeps the one record of a move that survives everything: the death of every process, and a reboot.
//
// A move has one file on each host. It is preallocated when the move begins, so that a record inside the freeze costs one
// write and one fdatasync and can't fail for lack of space:
//
//	+-----------+-------------+----------------------+-----------+--- ... ---+-- zeros to the end --+
//	| length 4  | CRC-32C 4   | record, JSON (length)| length 4  |           |                      |
//	+-----------+-------------+----------------------+-----------+--- ... ---+----------------------+
//
// Numbers are little endian, the checksum covers the JSON. Reading ends at the first record that is not whole: a power cut
// may tear the last one, and a torn record was never acted upon, because Append had not returned.
package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/failpoint"
)

// size of a journal file: a move writes about ten records of some hundred bytes each.
const size = 64 << 10

const headerSize = 8

// longestDetail bounds what a record says besides, in bytes: whatever an error has to tell, its record fits.
const longestDetail = 2 << 10

var (
	// ErrLocked: another process is at work on this move. Ask it, or wait for its end.
	ErrLocked = errors.New("the move's journal is in use")
	// ErrCorrupt: the file does not start with a whole record. Nothing can be concluded from it.
	ErrCorrupt = errors.New("journal is corrupt")
	// ErrFull: more records than any move writes.
	ErrFull = errors.New("journal is full")
)

// Step names what a record testifies.
type Step string

// The steps, in the order in which they can follow. Source: Begin, CommitSent, then Done or RolledBack. Peer: Begin,
// Committed, then Running, Owing and Running, or Aborted. docs/protocol.md tells what may be concluded from each.
const (
	Begin      Step = "begin"
	CommitSent Step = "commit-sent"
	Committed  Step = "committed"
	Owing      Step = "owing" // it runs here, but only the source has all of its memory
	Running    Step = "running"
	Aborted    Step = "aborted"
	Done       Step = "done"
	RolledBack Step = "rolled-back"
)

// Role is the side of the move that a journal belongs to.
type Role string

// The two sides.
const (
	Source Role = "source"
	Peer   Role = "peer"
)

// Move says which move it is and all that ending it takes after every process is gone.
type Move struct {
	Name      string `json:"move"` // 32 hexadecimal digits, the same on both hosts
	Role      Role   `json:"role"`
	Container string `json:"container"`
	Root      string `json:"root"`            // state root of the runtime
	Peer      string `json:"peer"`            // address, or authenticated name, of the other side
	Token     string `json:"token,omitempty"` // source: names the session to the peer, hexadecimal; secret. Peer: its digest
	Keep      bool   `json:"keep,omitempty"`  // source: the stopped container stays
}

// Record is one line of the story.
type Record struct {
	Step   Step      `json:"step"`
	At     time.Time `json:"at"`
	Boot   string    `json:"boot,omitempty"`  // of this host: what ran then has died with it
	Move   *Move     `json:"begin,omitempty"` // of Begin only
	Detail string    `json:"detail,omitempty"`
}

// Journal is an open, locked journal. It is not safe for concurrent use.
type Journal struct {
	file   *os.File
	sync   func() error // fdatasync
	boot   string
	end    int64
	last   Step
	failed error // of an earlier record: what is on the disk is not known any more
	spent  time.Duration
}

// Create starts the journal of a move and writes its first record, durably. dir is made when missing.
func Create(dir string, m Move) (_ *Journal, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	path := Path(dir, m.Name, m.Role)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	j := newJournal(file)
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close(), os.Remove(path))
		}
	}()
	if err := j.lock(); err != nil {
		return nil, err
	}
	// Written zeros, not fallocate: an unwritten extent would make every fdatasync inside the freeze wait for a transaction
	// of the filesystem's own journal.
	if _, err := file.Write(make([]byte, size)); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	if err := file.Sync(); err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	if err := j.append(Record{Step: Begin, Move: &m}, true); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	return j, nil
}

// Open continues an existing journal. ErrLocked means that the move's own process is alive.
func Open(path string) (_ *Journal, err error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := newJournal(file)
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	if err := j.lock(); err != nil {
		return nil, err
	}
	story, err := read(path)
	if err != nil {
		return nil, err
	}
	j.end, j.last = story.end, story.Last()
	return j, nil
}

func newJournal(file *os.File) *Journal {
	return &Journal{file: file, boot: BootID(), sync: func() error { return syscall.Fdatasync(int(file.Fd())) }}
}

func (j *Journal) lock() error {
	if err := syscall.Flock(int(j.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", j.file.Name(), ErrLocked)
		}
		return fmt.Errorf("lock journal: %w", err)
	}
	return nil
}

// Append records a step. When it returns nil the record is on the disk. When it fails the record is taken back, and so is
// the right to append: a disk that lost one record may lose the next. The journal can be opened anew.
func (j *Journal) Append(step Step, detail string) error {
	return j.append(Record{Step: step, Detail: detail}, true)
}

// Note records a step that nothing is concluded from after a power cut, without waiting for the disk.
func (j *Journal) Note(step Step, detail string) error {
	return j.append(Record{Step: step, Detail: detail}, false)
}

func (j *Journal) append(r Record, durable bool) error {
	began := time.Now()
	defer func() { j.spent += time.Since(began) }()
	if j.failed != nil {
		return fmt.Errorf("write journal: an earlier record was lost: %w", j.failed)
	}
	r.At, r.Boot = failpoint.Now(), j.boot
	if len(r.Detail) > longestDetail {
		r.Detail = strings.ToValidUTF8(r.Detail[:longestDetail], "") + "..."
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if j.end+headerSize+int64(len(payload)) > size {
		return fmt.Errorf("write %s: %w", j.file.Name(), ErrFull)
	}
	record := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
	record = binary.LittleEndian.AppendUint32(record, crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
	record = append(record, payload...)
	if err := j.write(record, durable); err != nil {
		j.failed = err
		// Whoever reads the file next must not find a step that was never taken.
		_, undo := j.file.WriteAt(make([]byte, headerSize), j.end)
		return fmt.Errorf("write journal: %w", errors.Join(err, undo))
	}
	j.end += int64(len(record))
	j.last = r.Step
	return nil
}

func (j *Journal) write(record []byte, durable bool) error {
	if _, err := j.file.WriteAt(record, j.end); err != nil {
		return err
	}
	if durable {
		return j.sync()
	}
	return nil
}

// Last is the step of the newest record.
func (j *Journal) Last() Step { return j.last }

// Spent is how long records have taken to be written, and where that was waited for, to be on the disk.
func (j *Journal) Spent() time.Duration { return j.spent }

// Close gives the lock up. The file stays.
func (j *Journal) Close() error { return j.file.Close() }

// Path is where the journal of a move lies.
func Path(dir, move string, role Role) string {
	return filepath.Join(dir, move+"."+string(role))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync journal directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// BootID names this run of the host's kernel; empty where there is no /proc.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
