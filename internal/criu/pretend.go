package criu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/sys/mountns"
)

// ErrNoPretence: this CRIU could not be made to believe that the kernel tracks changed memory. Dump without a parent.
var ErrNoPretence = errors.New("criu cannot be told that memory is tracked")

// CRIU keeps what it found out about the kernel in a file, the raw struct kerndat_s of criu/include/kerndat.h. The flag
// has_dirty_track has been its byte 32 from 3.15 to 4.3.
const (
	kdatDir   = "/run"
	kdatPath  = kdatDir + "/criu.kdat"
	kdatMagic = 0x57023458
	kdatTrack = 32
)

// StartTracked starts a child that takes a parent for its dumps: one that finds the kernel's tracking of changed memory,
// or, on a kernel without, one that pretends to, so that it takes every page for unchanged. Only a caller that knows by
// itself what changed may dump with such a child: see Client.Pretends. It is asked by a feature check, and what cannot be
// confirmed is ErrNoPretence. Nobody else's CRIU is misled: the altered copy of its cache is in the child's own mount
// namespace.
func StartTracked(ctx context.Context, o *StartOptions) (*Client, error) {
	kdat, err := o.readKdat(ctx)
	if err != nil {
		return nil, err
	}
	if kdat == nil {
		return Start(ctx, o)
	}
	if err := pretend(kdat); err != nil {
		return nil, err
	}
	c, err := o.startWith(ctx, kdat)
	if err != nil {
		return nil, err
	}
	features, err := c.FeatureCheck(ctx)
	if err == nil && !features.MemTrack {
		err = fmt.Errorf("%w: it still says that memory is not", ErrNoPretence)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.pretends = true
	return c, nil
}

// Pretends tells a child of StartTracked that takes all pages for unchanged.
func (c *Client) Pretends() bool { return c.pretends }

// readKdat has a child write its cache where nobody else sees it. nil: the kernel tracks memory.
func (o *StartOptions) readKdat(ctx context.Context) (kdat []byte, err error) {
	var c *Client
	err = mountns.Do(func() (err error) {
		if err := mountns.Cover(kdatDir); err != nil { // the cache is written to tmpfs only
			return err
		}
		c, err = Start(ctx, &StartOptions{Path: o.Path, Log: o.Log})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPretence, err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	features, err := c.FeatureCheck(ctx)
	if err != nil {
		return nil, err
	}
	if features.MemTrack {
		return nil, nil
	}
	version, err := c.Version(ctx)
	if err != nil {
		return nil, err
	}
	if !knownKdat(version) {
		return nil, fmt.Errorf("%w: its version %s is not known", ErrNoPretence, version)
	}
	if kdat, err = os.ReadFile(fmt.Sprintf("/proc/%d/root%s", c.Pid(), kdatPath)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPretence, err)
	}
	return kdat, nil
}

// knownKdat: the versions whose struct was looked at.
func knownKdat(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major == 3 && minor >= 15 || major == 4 && minor <= 3
}

// pretend sets the flag.
func pretend(kdat []byte) error {
	if len(kdat) <= kdatTrack || len(kdat) > 1<<16 || binary.LittleEndian.Uint32(kdat) != kdatMagic || kdat[kdatTrack] != 0 {
		return fmt.Errorf("%w: its cache is not the one that is known", ErrNoPretence)
	}
	// With the flag CRIU resets the kernel's tracking, and takes it ill if it cannot.
	if err := os.WriteFile("/proc/self/clear_refs", []byte("4"), 0); err != nil {
		return fmt.Errorf("%w: %w", ErrNoPretence, err)
	}
	kdat[kdatTrack] = 1
	return nil
}

// startWith starts a child that finds this cache.
func (o *StartOptions) startWith(ctx context.Context, kdat []byte) (c *Client, err error) {
	// Something to mount over. An empty cache is as good as none to others.
	place, err := os.OpenFile(kdatPath, os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = place.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoPretence, err)
	}
	private, err := os.CreateTemp(filepath.Dir(kdatPath), "criu.kdat.*")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPretence, err)
	}
	defer func() { err = errors.Join(err, os.Remove(private.Name())) }()
	_, err = private.Write(kdat)
	if err := errors.Join(err, private.Close()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoPretence, err)
	}
	err = mountns.Do(func() error {
		if err := mountns.Replace(kdatPath, private.Name()); err != nil {
			return fmt.Errorf("%w: %w", ErrNoPretence, err)
		}
		c, err = Start(ctx, o)
		return err
	})
	return c, err
}
