package feed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/sys/descriptor"
	"github.com/livemigrate/migrate/internal/sys/mapping"
	"github.com/livemigrate/migrate/internal/sys/uffd"
)

const pageSize = memory.PageSize

// journal is what a feeder leaves to its successor, whenever it is killed: a file that every generation maps. What the kernel
// hands out only once (messages, descriptors) it writes straight into it.
//
//	0            head
//	spentOffset  a bit for each slot: every page of it was fed, or is needed no more
//	entryOffset  entries, in the order in which things happened; the first free one ends them
type journal struct {
	file *os.File
	head *head

	raw     []byte
	spent   []byte   // nil until the layout is known
	batches [][]byte // of entries
	next    int      // the first free entry
}

const (
	journalMagic = 0x32304c4e524a4d46 // a generation of another program would not understand it

	spentOffset = pageSize
	spentLimit  = maxSlots / 8
	entryOffset = spentOffset + spentLimit // the file is sparse

	entrySize    = 64
	batchEntries = 1 << 14
	batchSize    = batchEntries * entrySize
)

// head is the journal's first page. All words are read and written atomically.
type head struct {
	magic      uint64
	generation uint32    // of the feeder that holds what the entries name; 0 before the first
	complete   uint32    // CRIU has said that all tasks are there and registered: pages may be pushed
	ended      uint32    // CRIU hung up, or will never come: there are no more tasks
	holders    [2]uint32 // pids, by the generation's lowest bit
	layouts    [2]uint32 // descriptors of the layout, likewise
	reserved   uint32

	fed, total, faults, zeros uint64 // pages, pages, times, times; for reports

	hand hand

	why [1000]byte // the feeding is hopeless, in words that end with a 0
}

// hand is the next task, as its parts come from CRIU.
type hand struct {
	state   uint32
	pid     int32
	entry   uint32 // where the task is going to stand
	data    uint32 // the byte that comes with the descriptor
	control [descriptor.SenderSize + descriptor.RightSize]byte
	host    int32 // what we call the process
}

// States of a hand.
const (
	handPid  = iota // the pid comes next
	handUffd        // then its descriptor
)

// entry is one thing that happened.
type entry struct {
	state      uint32
	generation uint32
	space      uint32                 // the entry that the address space began with
	pid        int32                  // entryTask
	fds        [2]uint32              // of the space that begins here, by the generation's lowest bit; 0 in the one that made it by a fork
	closed     uint32                 // the space that begins here is fed, or gone
	host       int32                  // entryTask: the process, as we call it
	message    [uffd.MessageSize]byte // entryEvent; entryReading: its first byte is 0 until the kernel has written it
}

// States of an entry.
const (
	entryFree    = iota
	entryReading // a message is being read into it
	entryEvent   // a message that changed something
	entryTask    // CRIU has handed over a task
	entryWaited  // a thread waited for a page before all tasks were there: the message is the fault, which was not served yet
)

var errJournal = errors.New("not a journal of this version")

// openJournal maps the file, which is empty the first time.
func openJournal(f *os.File) (*journal, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		if err := f.Truncate(entryOffset); err != nil {
			return nil, fmt.Errorf("make journal: %w", err)
		}
	}
	raw, err := mapping.Shared(f, 0, pageSize, true)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f, head: (*head)(unsafe.Pointer(&raw[0])), raw: raw}
	if info.Size() == 0 {
		atomic.StoreUint64(&j.head.magic, journalMagic)
	}
	if atomic.LoadUint64(&j.head.magic) != journalMagic {
		return nil, errors.Join(errJournal, j.close())
	}
	return j, nil
}

// slots maps the bits of so many slots.
func (j *journal) slots(n uint64) (err error) {
	size := (n + 8*pageSize - 1) / (8 * pageSize) * pageSize
	j.spent, err = mapping.Shared(j.file, spentOffset, int64(size), true)
	return err
}

// entry is the one of that number; the file grows as needed.
func (j *journal) entry(i int) (*entry, error) {
	for i/batchEntries >= len(j.batches) {
		n := int64(len(j.batches))
		info, err := j.file.Stat()
		if err != nil {
			return nil, err
		}
		if end := entryOffset + (n+1)*batchSize; info.Size() < end {
			if err := j.file.Truncate(end); err != nil {
				return nil, fmt.Errorf("grow journal: %w", err)
			}
		}
		b, err := mapping.Shared(j.file, entryOffset+n*batchSize, batchSize, true)
		if err != nil {
			return nil, err
		}
		j.batches = append(j.batches, b)
	}
	return (*entry)(unsafe.Pointer(&j.batches[i/batchEntries][i%batchEntries*entrySize])), nil
}

func (j *journal) close() error {
	err := mapping.Unmap(j.raw)
	if j.spent != nil {
		err = errors.Join(err, mapping.Unmap(j.spent))
	}
	for _, b := range j.batches {
		err = errors.Join(err, mapping.Unmap(b))
	}
	return err
}

// begin makes a free entry ready for a message of the space.
func (e *entry) begin(space, generation int) {
	e.space, e.generation, e.message[0] = uint32(space), uint32(generation), 0
	e.fds, e.closed, e.host = [2]uint32{}, 0, 0
	atomic.StoreUint32(&e.state, entryReading)
}

// fd is the descriptor of the space that begins here, as the generation's table has it.
func (e *entry) fd(generation int) int {
	if fd := e.fds[generation&1]; fd != 0 {
		return int(fd)
	}
	if int(e.generation) == generation && atomic.LoadUint32(&e.state) == entryEvent && uffd.Kind(e.message[0]) == uffd.Fork {
		return int(binary.NativeEndian.Uint32(e.message[8:]))
	}
	return 0
}

func (h *head) bank(generation int) *uint32 { return &h.holders[generation&1] }

// despair says why no feeder can go on; last, so that who waits for the feeder's end can read it.
func (h *head) despair(err error) { copy(h.why[:len(h.why)-1], err.Error()) }

// reason is what despair said, "" for nothing.
func (h *head) reason() string {
	text, _, _ := bytes.Cut(h.why[:], []byte{0})
	return string(text)
}
