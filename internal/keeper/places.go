package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/livemigrate/migrate/transport"
)

// Places are the directories of a host that moves use.
type Places struct {
	Root     string // state root of the runtime
	Journals string // survives a reboot
	Bundles  string // peer: where containers are received
}

// Defaults of a host.
const (
	DefaultRoot     = "/run/migrate"
	DefaultJournals = "/var/lib/migrate/journal"
	DefaultBundles  = "/var/lib/migrate/bundles"
)

// Fill puts the defaults where nothing is set.
func (p Places) Fill() Places {
	if p.Root == "" {
		p.Root = DefaultRoot
	}
	if p.Journals == "" {
		p.Journals = DefaultJournals
	}
	if p.Bundles == "" {
		p.Bundles = DefaultBundles
	}
	return p
}

// run is where sockets, locks and spools of moves are: beside the state root, which holds nothing but containers.
func (p Places) run() string { return filepath.Clean(p.Root) + "-handover" }

// socket is the unix socket of a session's keeper. The token itself must not be readable from a path.
func (p Places) socket(token transport.Token) string {
	sum := sha256.Sum256(token[:])
	return filepath.Join(p.run(), hex.EncodeToString(sum[:12])+".sock")
}

// make creates the directory of sockets and spools.
func (p Places) make() error {
	if err := os.MkdirAll(p.run(), 0o700); err != nil {
		return fmt.Errorf("make directory for moves: %w", err)
	}
	return nil
}

// spool makes an empty private directory for images, in memory where that can be had: images hold all that the container
// knows, and a disk is slower than the link.
func (p Places) spool(move string) (string, error) {
	if err := p.make(); err != nil {
		return "", err
	}
	parent := p.run()
	if !isTmpfs(parent) && isTmpfs("/dev/shm") {
		parent = "/dev/shm"
	}
	dir := filepath.Join(parent, "migrate-images-"+move)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("make image directory: %w", err)
		}
		if err := os.RemoveAll(dir); err != nil { // of a move of that name that a crash ended
			return "", fmt.Errorf("clear image directory: %w", err)
		}
		return p.spool(move)
	}
	return dir, nil
}

// index is where the index of a tree is kept between moves, on either side.
func (p Places) index(tree string) (string, error) {
	dir := filepath.Join(filepath.Dir(p.Journals), "index")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make directory for indexes: %w", err)
	}
	sum := sha256.Sum256([]byte(filepath.Clean(tree)))
	return filepath.Join(dir, hex.EncodeToString(sum[:12])), nil
}
