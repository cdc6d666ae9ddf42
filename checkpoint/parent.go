package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/image"
	"github.com/livemigrate/migrate/internal/memory"
	"github.com/livemigrate/migrate/internal/memory/reader"
	"github.com/livemigrate/migrate/internal/memory/track"
	"github.com/livemigrate/migrate/internal/sys/pagemap"
	"github.com/livemigrate/migrate/runtime"
)

// A checkpoint on a parent writes what is not in the parent. CRIU finds out by the kernel's soft-dirty bits, which it
// clears at each pre-dump. Where the kernel has none, or somebody else has cleared them since, pages are compared with
// those of the parent: the result is the same, whatever the parent is. A compressed parent CRIU could not read either.

// compares tells whether pages are to be compared.
func (o *Options) compares(c *runtime.Container) bool {
	if o.ParentPath == "" || o.LeaveMemory || o.LazyPages || o.PageServer != "" || o.AutoDedup {
		return false
	}
	packed, err := image.HasPacked(filepath.Join(o.ImagesDir, o.ParentPath))
	return err == nil && packed || pagemap.HaveSoftDirty() != nil || softDirtyCleared(c)
}

// clearedName is a file in the container's directory: a parent that is older than it is none for CRIU.
const clearedName = "soft-dirty-cleared"

func softDirtyCleared(c *runtime.Container) bool {
	_, err := os.Stat(filepath.Join(c.StateDir(), clearedName))
	return !errors.Is(err, fs.ErrNotExist)
}

// ClearsSoftDirty is for who is about to clear the kernel's soft-dirty bits of a container's memory: a checkpoint on a
// parent will not trust them.
func ClearsSoftDirty(c *runtime.Container) error {
	if err := os.WriteFile(filepath.Join(c.StateDir(), clearedName), nil, 0o600); err != nil {
		return fmt.Errorf("note that memory tracking is reset: %w", err)
	}
	return nil
}

// trackAnew is noted when CRIU has begun to follow memory, from nothing.
func trackAnew(c *runtime.Container) error {
	if err := os.Remove(filepath.Join(c.StateDir(), clearedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note that memory is tracked: %w", err)
	}
	return nil
}

// copyMemory is a pre-dump without CRIU: what the processes have is read while they run. It is of no moment in particular,
// which does not matter to who compares.
func (d *dump) copyMemory(ctx context.Context) error {
	o := d.options
	if o.PageServer != "" || o.AutoDedup || o.LazyPages {
		return ErrNoMemTrack
	}
	if err := d.ready(ctx); err != nil {
		return err
	}
	if err := o.enoughRoom(d.container); err != nil {
		return err
	}
	if !o.NoManifest {
		if err := d.startClient(ctx); err != nil {
			return err
		}
		var err error
		if d.version, err = d.client.Version(ctx); err != nil {
			return err
		}
	}
	if err := image.Remove(o.ImagesDir); err != nil {
		return err
	}
	if err := d.writeMemory(ctx); err != nil {
		return errors.Join(err, image.Remove(o.ImagesDir))
	}
	return (&Held{dump: d}).complete(ctx)
}

// writeMemory writes all private memory, or what the parent does not have.
func (d *dump) writeMemory(ctx context.Context) error {
	set, err := track.Open(ctx, d.container.Processes, &track.Options{Kind: track.None, Log: d.options.log()})
	if err != nil {
		return err
	}
	changes, err := set.Round(ctx)
	if err := errors.Join(err, set.Close()); err != nil {
		return err
	}
	up, err := uptime()
	if err != nil {
		return err
	}
	pids, memories := map[int]int{}, map[int][]memory.Range{}
	for _, c := range changes {
		pids[c.VPid], memories[c.VPid] = c.Pid, c.Populated
	}
	if err := image.WritePreDump(d.options.ImagesDir, up, memories); err != nil {
		return err
	}
	return d.options.fill(func(vpid int) (image.Memory, error) { return &passing{ctx: ctx, pid: pids[vpid]}, nil })
}

// fill puts memory into the images, over the parent where there is one to compare with.
func (o *Options) fill(open func(vpid int) (image.Memory, error)) error {
	if o.ParentPath == "" {
		return image.Fill(o.ImagesDir, open)
	}
	return image.FillOver(o.ImagesDir, o.ParentPath, open)
}

// passing is the memory of a process that runs. What is gone when it is read, is zeros: nobody will look for it there.
type passing struct {
	ctx    context.Context
	pid    int
	filler reader.Filler
}

// ReadAt reads whole pages.
func (p *passing) ReadAt(buf []byte, address int64) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	whole := memory.Range{Start: uint64(address), Pages: uint64(len(buf)) / memory.PageSize}
	got, gone, err := p.filler.Fill(p.pid, buf, []memory.Range{whole})
	switch {
	case errors.Is(err, reader.ErrTaskGone):
		clear(buf)
	case err != nil:
		return 0, err
	case len(gone) > 0:
		spread(buf, whole.Start, got)
	}
	return len(buf), nil
}

// spread moves pages that lie one behind the other to where they belong, from the last one on, with zeros between them.
func spread(buf []byte, start uint64, got []memory.Range) {
	from := uint64(0)
	for _, r := range got {
		from += r.Bytes()
	}
	end := uint64(len(buf))
	for i := len(got) - 1; i >= 0; i-- {
		r := got[i]
		from -= r.Bytes()
		copy(buf[r.Start-start:], buf[from:from+r.Bytes()])
		clear(buf[r.End()-start : end])
		end = r.Start - start
	}
	clear(buf[:end])
}

func (p *passing) Close() error { return nil }
