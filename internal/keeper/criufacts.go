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
	"github.com/livemigrate/migrate/internal/preflight"
)

// criuFacts are what the source's CRIU says of itself and of its host, for the peer to compare. Zero where it said nothing.
type criuFacts struct {
	version preflight.Version
	cpuinfo []byte
}

// cpuinfoFile is CRIU's name for it.
const cpuinfoFile = "cpuinfo.img"

// askCRIU collects the facts before the freeze. What can't be had costs a check at the peer, not the move.
func (p Places) askCRIU(ctx context.Context, client *criu.Client, log *slog.Logger) (facts criuFacts) {
	text, err := client.Version(ctx)
	if err == nil {
		facts.version = preflight.ParseVersion(text)
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

// lookAtCRIU finds out whether this host's CRIU could restore the container, and whether its processes would miss
// instructions here and die of that at some time after the move.
func (p *place) lookAtCRIU(ctx context.Context) (_ preflight.Version, findings preflight.Findings, err error) {
	client, text, findings := preflight.CRIU(ctx, p.host.order.CRIU, p.host.log)
	if client == nil {
		return 0, findings, nil
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	ours, theirs := preflight.ParseVersion(text), preflight.Version(p.hello.GetCriuVersion())
	if ours.OlderThan(theirs) {
		findings = append(findings, preflight.Misfit(preflight.Blocker, preflight.CRIUOld, "install the same release on both hosts",
			"CRIU is %v here, the source has %v", ours, theirs)...)
	}
	differs, err := p.checkProcessor(ctx, client, text)
	return ours, append(findings, differs...), err
}

// checkProcessor compares the processors. A pair that has passed once is not compared again before the next reboot.
func (p *place) checkProcessor(ctx context.Context, client *criu.Client, version string) (preflight.Findings, error) {
	theirs, places := p.hello.GetCpuinfo(), p.host.order.Places
	if len(theirs) == 0 {
		return preflight.Misfit(preflight.Warning, preflight.Processor, "", "the source sent no description of its processor: it is not compared"), nil
	}
	passed := places.kept("cpu-passed", version)
	if before, err := os.ReadFile(passed); err == nil && bytes.Equal(before, theirs) {
		return nil, nil
	}
	dir, err := places.scratch()
	if err != nil {
		return nil, err
	}
	image := filepath.Join(dir, cpuinfoFile)
	if err := os.WriteFile(image, theirs, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	var findings preflight.Findings
	if differs := client.CPUInfoCheck(ctx, dir); differs != nil {
		findings = preflight.Misfit(preflight.Blocker, preflight.Processor, "choose another peer", "the processors differ: %v", differs)
	} else {
		err = os.Rename(image, passed)
	}
	return findings, errors.Join(err, os.RemoveAll(dir))
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
