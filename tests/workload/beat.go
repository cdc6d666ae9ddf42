package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// beat is memory that counts what it was told to write, a file without a name, and a heart: every millisecond the time goes
// into another file. Of two copies of it each has a file of its own, so that whoever reads both knows whether both were alive.
type beat struct {
	*memory
	gone   *os.File
	writes int
}

// beatFile holds CLOCK_MONOTONIC of the last beat, in nanoseconds, 8 bytes of the machine's order.
const beatFile = "/beat"

func startBeat(args []string) (*beat, error) {
	o, err := memoryFlags(args)
	if err != nil {
		return nil, err
	}
	b := new(beat)
	if b.memory, err = startMemory(o); err != nil {
		return nil, err
	}
	if err := b.deleteFile(); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(beatFile, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	go live(file)
	return b, nil
}

// gonePages is large enough that the file travels by itself.
const gonePages = 512

func (b *beat) deleteFile() (err error) {
	if b.gone, err = os.Create("/gone"); err != nil {
		return err
	}
	for i := range gonePages {
		if _, err := b.gone.Write(gonePage(i)); err != nil {
			return err
		}
	}
	return os.Remove(b.gone.Name())
}

func gonePage(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%08d", i), 512) }

// checkGone looks at one page of it.
func (b *beat) checkGone(i int) error {
	page := make([]byte, 4096)
	if _, err := b.gone.ReadAt(page, int64(i)*4096); err != nil {
		return err
	}
	if !bytes.Equal(page, gonePage(i)) {
		return fmt.Errorf("page %d of a deleted file is another", i)
	}
	return nil
}

func live(file *os.File) {
	var now [8]byte
	for {
		binary.NativeEndian.PutUint64(now[:], monotonic())
		// A disk that is full takes it all the same: the block is there.
		_, _ = file.WriteAt(now[:], 0)
		time.Sleep(time.Millisecond)
	}
}

// monotonic is the machine's time, which a container shares.
func monotonic() uint64 {
	var t syscall.Timespec
	const clockMonotonic = 1
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0
	}
	return uint64(t.Nano())
}

// write counts one more, if the memory is what it should be.
func (b *beat) write() (int, error) {
	if err := b.check(); err != nil {
		return 0, fmt.Errorf("before write %d: %w", b.writes+1, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.checkGone(b.writes % gonePages); err != nil {
		return 0, fmt.Errorf("before write %d: %w", b.writes+1, err)
	}
	b.writes++
	return b.writes, nil
}
