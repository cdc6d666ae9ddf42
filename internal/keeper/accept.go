package keeper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/livemigrate/migrate/internal/link"
	"github.com/livemigrate/migrate/internal/wire"
)

// check tells what would keep this host from taking the container, before anything is touched.
func (p *place) check(context.Context) error {
	if theirs, ours := p.hello.GetMachine(), machine(); theirs != ours {
		return fmt.Errorf("%w: it runs on %s, this host is %s", wire.ErrIncompatible, theirs, ours)
	}
	if p.spec.Root == nil || p.spec.Linux == nil {
		return fmt.Errorf("%w: its config.json has no root or is not for Linux", wire.ErrIncompatible)
	}
	if p.identity.Network != nil {
		if err := link.CheckPeer(p.identity.Network); err != nil {
			return fmt.Errorf("%w: %w", wire.ErrIncompatible, err)
		}
	}
	if err := p.checkMounts(); err != nil {
		return err
	}
	if err := p.checkSpace(); err != nil {
		return err
	}
	return p.checkLog()
}

// checkLog finds a log that the container's monitor could not write here. It is made, as its owner would want it.
func (p *place) checkLog() error {
	path := p.identity.LogFile
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("%w: its log can't be written on this host, make the directory: %w", wire.ErrIncompatible, err)
	}
	return file.Close()
}

// checkMounts finds bind mounts that neither travel nor are here.
func (p *place) checkMounts() error {
	travels := make(map[int]bool)
	for _, v := range p.identity.Volumes {
		if v.Mount < 0 || v.Mount >= len(p.spec.Mounts) {
			return fmt.Errorf("%w: a volume without a mount", wire.ErrMalformed)
		}
		travels[v.Mount] = true
	}
	if len(p.identity.Volumes) != len(p.hello.GetTrees())-1 {
		return fmt.Errorf("%w: %d volumes, %d trees", wire.ErrMalformed, len(p.identity.Volumes), len(p.hello.GetTrees()))
	}
	for i, m := range p.spec.Mounts {
		if !isBind(m) || travels[i] {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			return fmt.Errorf("%w: %s, bind-mounted at %s, is not on this host: create it, or move with --volumes copy",
				wire.ErrIncompatible, m.Source, m.Destination)
		}
	}
	return nil
}

// checkSpace finds a disk or memory that is too small for sure. What is there already of a tree is not counted again.
func (p *place) checkSpace() error {
	if err := os.MkdirAll(p.host.order.Bundles, 0o755); err != nil {
		return fmt.Errorf("make bundles directory: %w", err)
	}
	var need uint64
	for i, t := range p.hello.GetTrees() {
		if _, err := os.Stat(p.treePath(i)); err != nil {
			need += t.GetBytes()
		}
	}
	spool := filepath.Dir(p.host.order.spoolPath(p.hello.GetMove()))
	if free, memory := freeSpace(spool), p.hello.GetMemoryBytes(); free < memory {
		return fmt.Errorf("%w: its memory needs %d MB below %s, %d MB are free", wire.ErrNoSpace, memory>>20, spool, free>>20)
	}
	if free := freeSpace(p.host.order.Bundles); free < need {
		return fmt.Errorf("%w: its files need %d MB below %s, %d MB are free", wire.ErrNoSpace, need>>20, p.host.order.Bundles, free>>20)
	}
	return nil
}

func freeSpace(dir string) uint64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0
	}
	return s.Bavail * uint64(s.Bsize)
}
