package keeper

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/internal/criu"
	"github.com/livemigrate/migrate/internal/journal"
	"github.com/livemigrate/migrate/internal/wire"
)

// criuFacts are what the source's CRIU says of itself and of its host, for the peer to compare. Zero where it said nothing.
type criuFacts struct {
	version criuVersion
	cpuinfo []byte
}

// criuVersion is 10000*major + 100*minor + sublevel, as in Hello and Offer.
type criuVersion uint32

func parseCRIUVersion(text string) criuVersion {
	var major, minor, sublevel uint32
	if n, _ := fmt.Sscanf(text, "%d.%d.%d", &major, &minor, &sublevel); n < 2 { // 4.2 has no sublevel
		return 0
	}
	return criuVersion(10000*major + 100*minor + sublevel)
}

func (v criuVersion) String() string {
	return fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100)
}

// olderThan compares releases; images of one sublevel are those of another.
func (v criuVersion) olderThan(other criuVersion) bool { return v/100 < other/100 }

// cpuinfoFile is CRIU's name for it.
const cpuinfoFile = "cpuinfo.img"

// askCRIU collects the facts before the freeze. What can't be had costs a check at the peer, not the move.
func (p Places) askCRIU(ctx context.Context, client *criu.Client, log *slog.Logger) (facts criuFacts) {
	text, err := client.Version(ctx)
	if err == nil {
		facts.version = parseCRIUVersion(text)
		facts.cpuinfo, err = p.cpuinfo(ctx, client, text)
	}
	if err != nil {
		log.Warn("the peer can't compare its CRIU and its processor with this host's", "error", err)
	}
	return facts
}

// cpuinfo describes this host's processor. CRIU takes tens of milliseconds for it, so its answer is kept until the reboot.
func (p Places) cpuinfo(ctx context.Context, client *criu.Client, version string) ([]byte, error) {
	kept := p.kept("cpuinfo", version)
	if image, err := os.ReadFile(kept); err == nil {
		return image, nil
	}
	dir, err := p.scratch()
	if err != nil {
		return nil, err
	}
	err = client.CPUInfoDump(ctx, dir)
	var image []byte
	if err == nil {
		image, err = os.ReadFile(filepath.Join(dir, cpuinfoFile))
	}
	if err == nil {
		err = os.Rename(filepath.Join(dir, cpuinfoFile), kept)
	}
	return image, errors.Join(err, os.RemoveAll(dir))
}

// checkCRIU refuses a container that this host's CRIU could not restore, or whose processes would miss instructions here
// and die of that at some time after the move.
func (p *place) checkCRIU(ctx context.Context) (_ criuVersion, err error) {
	path, err := criu.Locate(p.host.order.CRIU)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", wire.ErrIncompatible, err)
	}
	client, err := criu.Start(ctx, &criu.StartOptions{Path: path, Log: p.host.log})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", wire.ErrIncompatible, err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	text, err := client.Version(ctx)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", wire.ErrIncompatible, err)
	}
	ours, theirs := parseCRIUVersion(text), criuVersion(p.hello.GetCriuVersion())
	if ours.olderThan(theirs) {
		return 0, fmt.Errorf("%w: %s is CRIU %v, the source has %v: install the same release here", wire.ErrIncompatible, path, ours, theirs)
	}
	return ours, p.checkProcessor(ctx, client, text)
}

// checkProcessor compares the processors. A pair that has passed once is not compared again before the next reboot.
func (p *place) checkProcessor(ctx context.Context, client *criu.Client, version string) error {
	theirs, places := p.hello.GetCpuinfo(), p.host.order.Places
	if len(theirs) == 0 {
		p.host.log.Warn("the source sent no description of its processor")
		return nil
	}
	passed := places.kept("cpu-passed", version)
	if before, err := os.ReadFile(passed); err == nil && bytes.Equal(before, theirs) {
		return nil
	}
	dir, err := places.scratch()
	if err != nil {
		return err
	}
	image := filepath.Join(dir, cpuinfoFile)
	if err = os.WriteFile(image, theirs, 0o600); err == nil {
		if err = client.CPUInfoCheck(ctx, dir); err != nil {
			err = fmt.Errorf("%w: the processors differ: %w", wire.ErrIncompatible, err)
		} else {
			err = os.Rename(image, passed)
		}
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// kept is where an answer of CRIU's lies that holds until the host or CRIU changes.
func (p Places) kept(what, version string) string {
	sum := sha256.Sum256([]byte(journal.BootID() + version))
	return filepath.Join(p.run(), what+"-"+hex.EncodeToString(sum[:12]))
}

// scratch is an empty private directory.
func (p Places) scratch() (string, error) {
	if err := p.make(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(p.run(), "criu-")
	if err != nil {
		return "", fmt.Errorf("make directory for criu: %w", err)
	}
	return dir, nil
}
