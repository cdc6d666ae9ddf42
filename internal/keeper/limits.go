package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/livemigrate/migrate/internal/filesync"
	"github.com/livemigrate/migrate/internal/handover"
	"github.com/livemigrate/migrate/internal/preflight"
)

// Limits are what peers may take of this host. Zero fields are no limits.
type Limits struct {
	Moves int           // containers that are received at once, by all processes with the same state root
	Size  int64         // bytes of one container: files, memory and images
	Time  time.Duration // of one move, up to its commit
}

// DefaultMoves is how many containers are received at once where nobody says otherwise: each takes a process, CRIU and memory.
const DefaultMoves = 16

// rewritten is how often the bytes of a container's files may come: what it writes while they travel comes again.
const rewritten = 2

func (l *Limits) handover() handover.Limits {
	return handover.Limits{Images: uint64(l.Size), Time: l.Time}
}

// files bounds the next pass over a tree, when so many bytes of files have come already.
func (l *Limits) files(came int64) filesync.Limits {
	if l.Size == 0 {
		return filesync.Limits{}
	}
	return filesync.Limits{Bytes: max(1, rewritten*l.Size-came)} // holes are free, as they are in what the source says of itself
}

// tooLarge tells of a container that says itself that it is larger than what is taken.
func (p *place) tooLarge() preflight.Findings {
	size, most := p.hello.GetMemoryBytes(), uint64(p.host.order.Limits.Size)
	for _, t := range p.hello.GetTrees() {
		if size += min(t.GetBytes(), 1<<62); size > 1<<62 {
			break
		}
	}
	if most == 0 || size <= most {
		return nil
	}
	return preflight.Misfit(preflight.Blocker, preflight.TooLarge, "choose another peer, or raise it there",
		"its files and memory are %s, and this host takes %s at most (--max-size)", mebibytes(size), mebibytes(most))
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }

// slot is a right to receive a container. The kernel takes it back when its process ends.
type slot struct{ file *os.File }

// takeSlot takes one of so many. nil without an error: all are taken.
func (p Places) takeSlot(most int) (*slot, error) {
	if err := p.make(); err != nil {
		return nil, err
	}
	for i := range most {
		s, err := openSlot(filepath.Join(p.run(), fmt.Sprintf("move-%d.slot", i)))
		if s != nil || err != nil {
			return s, err
		}
	}
	return nil, nil
}

// openSlot returns nil without an error when another process has it.
func openSlot(path string) (*slot, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("take a place among the moves: %w", err)
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && isFileAt(file, path) {
			return &slot{file}, nil
		}
		_ = file.Close()
		switch {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("take a place among the moves: %w", err)
		} // its last owner removed it between our open and our lock
	}
}

// Close gives it back and removes the file, while it is still ours.
func (s *slot) Close() error {
	if s == nil {
		return nil
	}
	return errors.Join(os.Remove(s.file.Name()), s.file.Close())
}

// allBusy refuses a container because there are so many already.
func allBusy(most int) error {
	return preflight.Misfit(preflight.Blocker, preflight.PeerBusy, "push it later, or raise the limit there",
		"this host receives %d containers already, which is as many as it takes at once (--max-moves)", most).Refusal()
}
