package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livemigrate/migrate/internal/wire"
)

// imageSender sends CRIU's images while CRIU still writes them. CRIU writes the pages first and only ever appends to
// them, so what is there can go, unless somebody else puts them in order at the end; everything else is small and goes when
// the dump is complete.
type imageSender struct {
	dir   string
	lanes []Channel
	early func() ([]string, error) // the files that may go while CRIU writes

	open   map[string]*os.File
	queued map[string]uint64 // how much of each file is on its way
	files  []*wire.ImageFile
}

// chunkRef is a piece of a file for any lane to take.
type chunkRef struct {
	file   *os.File
	name   string
	offset uint64
	size   int
}

// release gives the memory of a piece of pages back as soon as it is sent, so that this host never holds the container twice
// for long. Nothing reads it again: a rollback needs the processes, not their images.
func (c chunkRef) release() error {
	if !isLarge(c.name) {
		return nil
	}
	const punch = 0x1 | 0x2 // FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE of linux/falloc.h
	err := syscall.Fallocate(int(c.file.Fd()), punch, int64(c.offset), int64(c.size))
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return fmt.Errorf("release image %s: %w", c.name, err)
	}
	return nil
}

// isLarge tells the files that hold memory, or the content of deleted files: those that CRIU only appends to.
func isLarge(name string) bool {
	return strings.HasPrefix(name, "pages-") || strings.HasPrefix(name, "ghost-file-")
}

func newImageSender(dir string, lanes []Channel, early func() ([]string, error)) *imageSender {
	return &imageSender{dir: dir, lanes: lanes, early: early, open: make(map[string]*os.File), queued: make(map[string]uint64)}
}

// lookEvery is how often the images directory is looked at while CRIU writes. At memory speed 2 ms are some MB.
const lookEvery = 2 * time.Millisecond

// Run sends everything and returns when it is on its way. dumped is closed when the images are complete.
func (s *imageSender) Run(ctx context.Context, dumped <-chan struct{}) error {
	work, ctx := errgroup.WithContext(ctx)
	chunks := make(chan chunkRef)
	for _, lane := range s.lanes {
		work.Go(func() error { return sendChunks(ctx, lane, chunks) })
	}
	work.Go(func() error {
		defer close(chunks)
		return s.follow(ctx, dumped, chunks)
	})
	err := work.Wait()
	for _, file := range s.open { // only now: the lanes read from them
		err = errors.Join(err, file.Close())
	}
	return err
}

// follow hands out chunks as files grow.
func (s *imageSender) follow(ctx context.Context, dumped <-chan struct{}, chunks chan<- chunkRef) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		complete := false
		select {
		case <-dumped:
			complete = true
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.look(ctx, complete, chunks); err != nil {
			return err
		}
		if complete {
			return nil
		}
	}
}

func (s *imageSender) look(ctx context.Context, complete bool, chunks chan<- chunkRef) error {
	list := s.early
	if complete {
		list = s.all
	}
	names, err := list()
	if err != nil {
		return fmt.Errorf("read images: %w", err)
	}
	for _, name := range names {
		file := s.open[name]
		if file == nil {
			file, err = os.OpenFile(filepath.Join(s.dir, name), os.O_RDWR, 0)
			if errors.Is(err, os.ErrNotExist) && !complete {
				continue // it is named before it is made
			}
			if err != nil {
				return fmt.Errorf("read images: %w", err)
			}
			s.open[name] = file
		}
		info, err := file.Stat()
		if err != nil {
			return fmt.Errorf("read images: %w", err)
		}
		if err := s.queue(ctx, file, name, uint64(info.Size()), complete, chunks); err != nil {
			return err
		}
		if complete {
			s.files = append(s.files, &wire.ImageFile{Name: name, Size: uint64(info.Size()), Mode: uint32(info.Mode().Perm())})
		}
	}
	return nil
}

// all lists what a complete dump has to send.
func (s *imageSender) all() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		if entry.Type().IsRegular() && wire.ValidImageName(name) && !strings.HasSuffix(name, ".log") { // logs stay where they can be read
			names = append(names, name)
		}
	}
	return names, err
}

func (s *imageSender) queue(ctx context.Context, file *os.File, name string, size uint64, complete bool, chunks chan<- chunkRef) error {
	for s.queued[name] < size {
		left := size - s.queued[name]
		if left < wire.MaxChunk && !complete {
			return nil // wait for a whole chunk
		}
		ref := chunkRef{file: file, name: name, offset: s.queued[name], size: int(min(left, wire.MaxChunk))}
		select {
		case chunks <- ref:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.queued[name] += uint64(ref.size)
	}
	return nil
}

func sendChunks(ctx context.Context, lane Channel, chunks <-chan chunkRef) error {
	data := make([]byte, wire.MaxChunk)
	var header []byte
	for ref := range chunks {
		piece := data[:ref.size]
		if _, err := ref.file.ReadAt(piece, int64(ref.offset)); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read image %s: %w", ref.name, err)
		}
		header = wire.AppendChunkHeader(header[:0], wire.Chunk{Name: ref.name, Offset: ref.offset, Data: piece})
		if err := lane.Send(ctx, header, piece); err != nil {
			return fmt.Errorf("send image %s: %w", ref.name, err)
		}
		if err := ref.release(); err != nil {
			return err
		}
	}
	return nil
}

// Files lists the complete set. Call it after Run.
func (s *imageSender) Files() []*wire.ImageFile { return s.files }
